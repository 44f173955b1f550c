"""The progress bar of training and evaluation."""

import time
from collections import deque
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from rich.progress import TaskID

from vision_lab.core.batch import Batch

SPEED_SECONDS = 5.0
"""Seconds of training over which the images per second are averaged."""


class ProgressBar(RichProgressBar):
    """Lightning's Rich progress bar with images per second, refreshed every fourth batch.

    Refreshing it after every batch takes noticeable time on a small machine.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=4)
        self.steps: deque[tuple[float, int]] = deque()
        """Time and number of images of the last training steps."""
        self.images = 0
        """Number of images of these steps."""
        self.speed: float | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.restart()  # what is between epochs is no training
        super().on_train_epoch_start(trainer, pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.restart()
        self.speed = None
        super().on_test_start(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.restart()
        super().on_validation_end(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.record_step(len(batch.samples) * trainer.world_size)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any
    ) -> None:
        self._show_speed(trainer, arguments[1], self.test_progress_bar_id, self.test_description)
        super().on_test_batch_end(trainer, pl_module, *arguments)

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any
    ) -> None:
        self._show_speed(
            trainer, arguments[1], self.predict_progress_bar_id, self.predict_description
        )
        super().on_predict_batch_end(trainer, pl_module, *arguments)

    def _show_speed(
        self, trainer: pl.Trainer, batch: Any, bar: TaskID | None, description: str
    ) -> None:
        """Count a batch, and show the images per second beside the description of a bar."""
        self.record_step(_count_images(batch) * trainer.world_size)
        if self.progress is not None and bar is not None and self.speed is not None:
            shown = f"{description}  {self.speed:.0f} images/s"
            self.progress.update(bar, description=shown)

    def restart(self) -> None:
        """Forget the steps so far, so that a pause does not count."""
        self.steps.clear()
        self.images = 0

    def record_step(self, images: int) -> None:
        """Update the images per second of the last ``SPEED_SECONDS``.

        Args:
            images: number of images of the step, of all processes.
        """
        now = time.perf_counter()
        self.steps.append((now, images))
        self.images += images
        while now - self.steps[0][0] > SPEED_SECONDS and len(self.steps) > 2:
            self.images -= self.steps.popleft()[1]
        start, first_images = self.steps[0]
        if now > start:  # the images of the first step were processed before its end
            self.speed = (self.images - first_images) / (now - start)

    def _get_train_description(self, current_epoch: int) -> str:
        """Count epochs from 1, as all other output does."""
        last = self.trainer.max_epochs
        total = f"/{last}" if last is not None and last > 0 else ""
        description = f"Epoch {current_epoch + 1}{total}"
        return description.ljust(len(self.validation_description))  # the bars below each other

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the metrics to show, without the logger's version, which run folders lack."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if self.speed is not None:
            metrics["images/s"] = f"{self.speed:.0f}"
        return metrics


def _count_images(batch: Any) -> int:
    """Count the images of a batch; that of a generator is a list of tensors, latents first."""
    return len(batch.samples) if isinstance(batch, Batch) else len(batch[0])
