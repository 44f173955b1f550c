"""The samples of a split with the worst predictions, kept to be drawn."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class WorstSamples(Generic[T]):
    """Keeps the worst samples, or drawings of them; of equally bad ones the first in the dataset.

    Args:
        capacity: number of samples to keep.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._heap: list[tuple[float, int, T]] = []

    def offer(
        self,
        score: float,
        index: int,
        make: Callable[[], T],
    ) -> None:
        """Add a sample if it is among the worst.

        Args:
            score: how bad the prediction is.
            index: index of the sample in its split.
            make: returns what is kept of the sample; called only if it is among the worst.
        """
        if len(self._heap) < self.capacity:
            heapq.heappush(self._heap, (score, -index, make()))
        elif (score, -index) > self._heap[0][:2]:
            heapq.heapreplace(self._heap, (score, -index, make()))

    def sorted_samples(self) -> list[T]:
        """Return what was kept, of the worst sample first."""
        ordered = sorted(self._heap, key=lambda entry: entry[:2], reverse=True)
        return [kept for _, _, kept in ordered]
