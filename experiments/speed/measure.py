"""Callbacks that time and profile a run of vision_lab."""

from __future__ import annotations

import cProfile
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from stopwatch import RESULT, WARM_UP, Stopwatch

FIRST_STEP = b"first step\n"
"""Written to the error stream at the end of the first step, between the times of imports."""

PARTS = {
    "backward": ("run_backward",),
    "optimizer": ("torch/optim", "_foreach", "_fused", "torch/amp"),
    "images: reading, transforms, collation": (
        *("vision_lab/data", "torch/utils/data", "torchvision", "tv_tensors"),
        *("randint", "torch.stack", "manual_seed", "seeding"),
    ),
    "metrics": ("torchmetrics", "vision_lab/metrics"),
    "logging, progress": ("tensorboard", "rich", "vision_lab/loggers", "logger_connector"),
    "pytorch-lightning": ("pytorch_lightning", "lightning_fabric"),
    "vision_lab, other": ("vision_lab",),
    "operators of torch": ("torch.", "torch._C", "'torch", "TensorBase"),
    "modules of torch": ("/torch/",),
}
"""Parts of the program, and what the place of a function contains; the first that fits counts."""


class Timer(pl.Callback):
    """Reports the steps of a run of vision_lab."""

    def __init__(self) -> None:
        self.watch = Stopwatch()

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        if not self.watch.ends["train"]:
            os.write(2, FIRST_STEP)
        self.watch.step("train", len(arguments[2].samples) * trainer.world_size)

    def on_validation_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        if not trainer.sanity_checking:
            self.watch.step("val", len(arguments[2].samples) * trainer.world_size)

    def on_fit_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.is_global_zero:
            self.watch.write()


class StepProfile(pl.Callback):
    """Reports the milliseconds that a training step spends in each part of the program."""

    def __init__(self) -> None:
        self.profile = cProfile.Profile()
        self.steps = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps += 1
        if self.steps == WARM_UP:
            self.profile.enable()

    def on_validation_start(self, *_: Any) -> None:
        self.profile.disable()

    def on_fit_end(self, *_: Any) -> None:
        parts: dict[str, float] = defaultdict(float)
        for entry in self.profile.getstats():
            parts[find_part(entry.code)] += 1000 * entry.inlinetime / (self.steps - WARM_UP)
        Path(os.environ[RESULT]).write_text(json.dumps(parts))


def find_part(code: Any) -> str:
    """Return the part of the program that a function belongs to.

    Args:
        code: its code object, or the description of a built-in function.
    """
    place = code if isinstance(code, str) else code.co_filename
    for part, marks in PARTS.items():
        if any(mark in place for mark in marks):
            return part
    return "other"
