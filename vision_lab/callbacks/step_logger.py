"""Losses, learning rates and speed within an epoch."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl

from vision_lab.core.batch import Batch
from vision_lab.core.files import write_csv
from vision_lab.tasks.base import Task

SPEED_FILENAME = "speed.csv"


class StepLogger(pl.Callback):
    """Logs the loss, learning rate and images per second every ``trainer.log_every_n_steps`` steps.

    Their names are ``train/step_loss``, ``train/lr`` and ``train/images_per_second``. If a task has
    several losses without a total (``task=generate``), each of them is logged. Losses and speed are
    also shown in the progress bar. ``speed.csv`` has a row with seconds and images/s per epoch.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.images = self.epoch_images = 0
        self.window_start = self.epoch_start = self.last = 0.0
        self.learning_rates: dict[str, float] = {}

    def on_train_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        # A run may resume within an epoch, without on_train_epoch_start.
        self.window_start = self.epoch_start = time.perf_counter()

    def on_train_epoch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        self.images = self.epoch_images = 0
        self.window_start = self.epoch_start = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.learning_rates = cast(Task, pl_module).learning_rates()  # before the scheduler's step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self.images += len(batch.samples) * trainer.world_size
        self.epoch_images += len(batch.samples) * trainer.world_size
        if outputs and is_log_step(trainer, batch_idx):
            losses = outputs
            if "loss" in outputs:  # Lightning has divided it
                losses = {"loss": outputs["loss"] * trainer.accumulate_grad_batches}
            self._log(trainer, pl_module, {name: value.item() for name, value in losses.items()})
        self.last = time.perf_counter()

    def on_train_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        if not self.epoch_images:
            return
        seconds = self.last - self.epoch_start  # without validation, which follows the last step
        speed = self.epoch_images / seconds
        row = {
            "epoch": trainer.current_epoch,
            "seconds": round(seconds, 3),
            "images_per_second": round(speed, 2),
        }
        self.rows.append(row)
        if trainer.is_global_zero:
            write_csv(Path(trainer.default_root_dir), SPEED_FILENAME, self.rows)

    def _log(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, losses: Mapping[str, float]
    ) -> None:
        now = time.perf_counter()  # reading the losses has synchronized with the device
        speed = self.images / (now - self.window_start)
        self.images, self.window_start = 0, now
        metrics = {f"train/step_{name}": value for name, value in losses.items()}
        metrics["train/images_per_second"] = speed
        metrics |= {f"train/{name}": value for name, value in self.learning_rates.items()}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=logged_step(trainer))
        shown = {name.removesuffix("_loss"): value for name, value in losses.items()}
        pl_module.log_dict(
            shown,
            prog_bar=True,
            logger=False,
            on_step=True,
            on_epoch=False,
            batch_size=1,
        )

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


def logged_step(trainer: pl.Trainer) -> int:
    """Return the step at which the next point of a curve is logged.

    Lightning's ``global_step`` counts the steps of all optimizers, but its own curves count
    batches; if a task steps its optimizers itself, or has none, so do ours.
    """
    if not trainer.lightning_module.automatic_optimization:
        return trainer.fit_loop.epoch_loop._batches_that_stepped
    return trainer.global_step


def is_log_step(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Return whether the loss is logged after a batch, which synchronizes with the device.

    Args:
        trainer: the trainer.
        batch_idx: index of the batch in its epoch.
    """
    interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return interval > 0 and (batch_idx + 1) % interval == 0
