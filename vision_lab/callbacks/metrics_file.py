"""``metrics.csv``: one row for each epoch, the same to the bit for the same command."""

import csv
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

FILE = "metrics.csv"


class MetricsFile(Checkpoint):
    """Writes epoch, step and every scalar metric. No clocks: speed has a file of its own.

    It is a ``Checkpoint`` so that Lightning calls it after the task has logged the epoch's training metrics, and before
    the checkpoint that follows it in the list.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = sorted(trainer.callback_metrics.items())
        metrics = {name: value.item() for name, value in values if name.startswith(("train/", "val/"))}
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
