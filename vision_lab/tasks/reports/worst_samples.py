"""The samples of a split with the worst predictions, kept to be drawn."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from torch import Tensor


class WorstSamples:
    """Keeps drawings of the worst samples; of equally bad ones the first in the dataset.

    Args:
        capacity: number of samples to keep.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._heap: list[tuple[float, int, Tensor]] = []

    def offer(
        self,
        badness: float,
        index: int,
        draw: Callable[[], Tensor],
    ) -> None:
        """Add a sample if it is among the worst.

        Args:
            badness: how bad the prediction is.
            index: index of the sample in its split.
            draw: draws the sample; called only if the sample is kept.
        """
        if len(self._heap) < self.capacity:
            heapq.heappush(self._heap, (badness, -index, draw()))
        elif (badness, -index) > self._heap[0][:2]:
            heapq.heapreplace(self._heap, (badness, -index, draw()))

    def images(self) -> list[Tensor]:
        """Return the drawings, the worst sample first."""
        ordered = sorted(self._heap, key=lambda entry: entry[:2], reverse=True)
        return [image for _, _, image in ordered]
