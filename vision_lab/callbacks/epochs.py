"""One row of numbers for each epoch: into ``metrics.csv``, and onto the screen."""

import csv
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from rich import get_console

FILE = "metrics.csv"


class EpochMetrics(Checkpoint, ABC):
    """Sees the metrics of each epoch, those of validation where there was one.

    It is a ``Checkpoint`` so that Lightning calls it after the task has logged the epoch's training metrics, and before
    the checkpoint that follows it in the list.
    """

    validated = False

    @abstractmethod
    def see(self, trainer: pl.Trainer, metrics: dict[str, float]) -> None:
        """Take an epoch's metrics, sorted by name."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning keeps the last values of metrics that this epoch did not compute.
        splits = ("train/", "val/") if self.validated else ("train/",)
        self.validated = False
        values = sorted(trainer.callback_metrics.items())
        self.see(trainer, {name: value.item() for name, value in values if name.startswith(splits)})


class MetricsFile(EpochMetrics):
    """Writes epoch, step and every scalar metric, the same to the bit for the same command: it holds no clocks."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def see(self, trainer: pl.Trainer, metrics: dict[str, float]) -> None:
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **metrics})
        if trainer.is_global_zero:
            columns = list(dict.fromkeys(name for row in self.rows for name in row))
            with (Path(trainer.default_root_dir) / FILE).open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(self.rows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class EpochLine(EpochMetrics):
    """Prints a line.

    Args:
        names: of the metrics to print, without their split.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(f"/{name}" for name in names)

    def see(self, trainer: pl.Trainer, metrics: dict[str, float]) -> None:
        if trainer.is_global_zero:
            shown = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items() if name.endswith(self.names))
            line = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}"
            get_console().print(line, highlight=False, soft_wrap=True)
