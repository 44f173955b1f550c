"""One row of numbers for each epoch: into ``metrics.csv``, and onto the screen."""

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

FILE = "metrics.csv"


class EpochMetrics(Checkpoint, ABC):
    """Sees the metrics of each epoch, those of validation where there was one.

    It is a ``Checkpoint`` so that Lightning calls it after the task has logged the epoch's training metrics, and before
    the checkpoint that follows it in the list.
    """

    def __init__(self) -> None:
        self.val: dict[str, float] = {}
        """What this epoch's last validation measured."""

    @abstractmethod
    def on_epoch_metrics(self, trainer: pl.Trainer, metrics: dict[str, float]) -> None:
        """Take an epoch's metrics, sorted by name."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.val = {} if trainer.sanity_checking else _measured(trainer, "val/")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        measured = _measured(trainer, "train/") | self.val
        self.val = {}
        self.on_epoch_metrics(trainer, dict(sorted(measured.items())))

    def state_dict(self) -> dict[str, Any]:
        return {"val": self.val}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.val = state_dict["val"]


class MetricsCsv(EpochMetrics):
    """Writes epoch, step and every scalar metric, the same to the bit for the same command: it holds no clocks."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def on_epoch_metrics(self, trainer: pl.Trainer, metrics: dict[str, float]) -> None:
        self.rows.append({"epoch": trainer.current_epoch, "step": logged_step(trainer), **metrics})
        if trainer.is_global_zero:
            write_csv(Path(trainer.default_root_dir), FILE, self.rows)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.rows = state_dict["rows"]


class EpochSummary(EpochMetrics):
    """Prints a line.

    Args:
        names: of the metrics to print, without their split.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(f"/{name}" for name in names)

    def on_epoch_metrics(self, trainer: pl.Trainer, metrics: dict[str, float]) -> None:
        if trainer.is_global_zero:
            shown = "  ".join(
                f"{name} {value:.3f}"
                for name, value in metrics.items()
                if name.endswith(self.names)
            )
            line = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}"
            get_console().print(Text(line), highlight=False, soft_wrap=True)


def _measured(trainer: pl.Trainer, split: str) -> dict[str, float]:
    return {
        name: value.item()
        for name, value in trainer.callback_metrics.items()
        if name.startswith(split)
    }
