"""Metrics of each epoch, written to ``metrics.csv`` and printed."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from rich import get_console
from rich.text import Text

from vision_lab.callbacks.step_logger import logged_step
from vision_lab.core.files import write_csv

METRICS_FILENAME = "metrics.csv"


class EpochMetrics(Checkpoint, ABC):
    """Base class of callbacks that receive the metrics of each epoch.

    It is a ``Checkpoint`` because Lightning calls those after the task has logged the training
    metrics of the epoch, in their order in the list: this one before the checkpoints.
    """

    def __init__(self) -> None:
        self.val_metrics: dict[str, float] = {}
        """Metrics of the last validation in this epoch."""

    @abstractmethod
    def on_epoch_metrics(
        self,
        trainer: pl.Trainer,
        metrics: dict[str, float],
    ) -> None:
        """Handle the metrics of an epoch.

        Args:
            trainer: the trainer.
            metrics: training and validation metrics, sorted by name.
        """

    def on_validation_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        self.val_metrics = {} if trainer.sanity_checking else _get_metrics(trainer, "val/")

    def on_train_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        metrics = _get_metrics(trainer, "train/") | self.val_metrics
        self.val_metrics = {}
        self.on_epoch_metrics(trainer, dict(sorted(metrics.items())))

    def state_dict(self) -> dict[str, Any]:
        return {"val_metrics": self.val_metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.val_metrics = state_dict["val_metrics"]


class MetricsCsv(EpochMetrics):
    """Writes epoch, step and every scalar metric to ``metrics.csv``.

    The file contains no times, so the same command writes the same bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def on_epoch_metrics(
        self,
        trainer: pl.Trainer,
        metrics: dict[str, float],
    ) -> None:
        self.rows.append(
            {
                "epoch": trainer.current_epoch,
                "step": logged_step(trainer),
                **metrics,
            }
        )
        if trainer.is_global_zero:
            write_csv(Path(trainer.default_root_dir), METRICS_FILENAME, self.rows)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.rows = state_dict["rows"]


class EpochSummary(EpochMetrics):
    """Prints a line for each epoch.

    Args:
        names: names of the metrics to print, without their split.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.suffixes = tuple(f"/{name}" for name in names)

    def on_epoch_metrics(
        self,
        trainer: pl.Trainer,
        metrics: dict[str, float],
    ) -> None:
        if trainer.is_global_zero:
            names = []
            for name in metrics:
                if name.endswith(self.suffixes):
                    names.append(name)
            values = "  ".join(f"{name} {metrics[name]:.3f}" for name in names)
            line = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {values}"
            get_console().print(Text(line), highlight=False, soft_wrap=True)


def _get_metrics(trainer: pl.Trainer, prefix: str) -> dict[str, float]:
    logged = trainer.callback_metrics
    metrics = {}
    for name, value in logged.items():
        if name.startswith(prefix):
            metrics[name] = value.item()
    return metrics
