"""What happens within an epoch: the loss and the speed of every so many steps."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from vision_lab.core.batch import Batch
from vision_lab.core.files import write_csv
from vision_lab.tasks.base import Task

FILE = "speed.csv"


class StepLogger(pl.Callback):
    """Logs ``train/step_loss``, ``train/lr`` and ``train/images_per_second`` every ``trainer.log_every_n_steps`` steps.

    Of a task with several losses and none that adds them up (``task=generate``), each of them. Losses and speed go to
    the progress bar too. ``speed.csv`` has a row for each epoch: seconds of training and images/s.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.images = self.epoch_images = 0
        self.window_start = self.epoch_start = self.last = 0.0
        self.learning_rates: dict[str, float] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.window_start = self.epoch_start = (
            time.perf_counter()
        )  # a run may go on within an epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.images = self.epoch_images = 0
        self.window_start = self.epoch_start = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Task)
        self.learning_rates = pl_module.learning_rates()  # after the step they are the next one's

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
            losses = (
                {"loss": outputs["loss"] * trainer.accumulate_grad_batches}
                if "loss" in outputs
                else outputs
            )
            self._log(trainer, pl_module, {name: value.item() for name, value in losses.items()})
        self.last = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.epoch_images:
            return
        seconds = self.last - self.epoch_start  # validation came after the last step
        speed = self.epoch_images / seconds
        row = {
            "epoch": trainer.current_epoch,
            "seconds": round(seconds, 3),
            "images_per_second": round(speed, 2),
        }
        self.rows.append(row)
        if trainer.is_global_zero:
            write_csv(Path(trainer.default_root_dir), FILE, self.rows)

    def _log(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, losses: Mapping[str, float]
    ) -> None:
        """Reading the losses has waited for the device, so the clock is right."""
        now = time.perf_counter()
        speed = self.images / (now - self.window_start)
        self.images, self.window_start = 0, now
        metrics = {f"train/step_{name}": value for name, value in losses.items()}
        metrics |= {"train/images_per_second": speed}
        metrics |= {f"train/{name}": rate for name, rate in self.learning_rates.items()}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=logged_step(trainer))
        bar = {
            **{name.removesuffix("_loss"): value for name, value in losses.items()},
            "images/s": speed,
        }
        pl_module.log_dict(
            bar, prog_bar=True, logger=False, on_step=True, on_epoch=False, batch_size=1
        )

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


def logged_step(trainer: pl.Trainer) -> int:
    """Where a curve has its next point.

    Lightning's ``global_step`` counts the steps of every optimiser, but it draws by batches: where there are two, so do
    we.
    """
    several = len(trainer.optimizers) > 1
    return trainer.fit_loop.epoch_loop._batches_that_stepped if several else trainer.global_step


def is_log_step(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether the device is waited for after this batch anyway, to log its loss (``trainer.log_every_n_steps``)."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and (batch_idx + 1) % every == 0
