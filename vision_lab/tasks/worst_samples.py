"""The samples of a split that a network got most wrong, kept to be looked at."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from torch import Tensor


class WorstSamples:
    """Keeps drawings of the ``most`` worst; of equals those that come first in the data set."""

    def __init__(self, most: int) -> None:
        self.capacity = most
        self.kept: list[tuple[float, int, Tensor]] = []

    def offer(self, badness: float, index: int, draw: Callable[[], Tensor]) -> None:
        """Take a sample at a place of the split; it is drawn only if it is to be kept."""
        if len(self.kept) < self.capacity:
            heapq.heappush(self.kept, (badness, -index, draw()))
        elif (badness, -index) > self.kept[0][:2]:
            heapq.heapreplace(self.kept, (badness, -index, draw()))

    def pictures(self) -> list[Tensor]:
        """From the worst on."""
        return [
            picture
            for _, _, picture in sorted(self.kept, key=lambda entry: entry[:2], reverse=True)
        ]
