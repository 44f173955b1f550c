"""What both sides of a pair report: seconds to the first step, and images/s."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

START = "SPEED_START"
"""Variable with the time at which the command was started, in seconds since the epoch."""

RESULT = "SPEED_RESULT"
"""Variable with the file that the result is written to."""

WARM_UP = 5
"""Steps that do not count as images/s: caches, threads and workers start in them."""


class Stopwatch:
    """Times steps, counted from the command."""

    def __init__(self) -> None:
        self.started = float(os.environ[START])
        self.ends: dict[str, list[tuple[float, int]]] = {"train": [], "val": [], "predict": []}

    def step(self, part: str, num_images: int) -> None:
        """Record the end of a step.

        Args:
            part: "train", "val" or "predict".
            num_images: its number of images.
        """
        self.ends[part].append((time.time(), num_images))

    def write(self) -> None:
        """Write the result."""
        result: dict[str, float] = {"seconds": time.time() - self.started}
        for part, ends in self.ends.items():
            if not ends:
                continue
            result[f"{part}_first"] = ends[0][0] - self.started
            warm_up = min(WARM_UP, len(ends) // 2)
            images = sum(count for _, count in ends[warm_up:])
            if len(ends) > 1:
                result[part] = images / (ends[-1][0] - ends[warm_up - 1][0])
        Path(os.environ[RESULT]).write_text(json.dumps(result))
