"""What a run was told and what came of it, for TensorBoard's TEXT and HPARAMS pages."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

Choice = str | int | float | bool


class RunCard(pl.Callback):
    """Writes the config as text and charts of train beside val when training starts, one HPARAMS row after the test.

    Args:
        choices: the handful of choices that tell this run from others.
    """

    def __init__(self, choices: Mapping[str, Any]) -> None:
        self.choices: dict[str, Choice] = {
            name: value if isinstance(value, Choice) else str(value) for name, value in choices.items()
        }

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        config = (Path(trainer.default_root_dir) / "config.yaml").read_text(encoding="utf-8")
        metric = _monitored(trainer).rpartition("/")[2]
        curves = {name: ["Multiline", [f"^train/{name}$", f"^val/{name}$"]] for name in dict.fromkeys(["loss", metric])}
        for writer in _writers(trainer):
            writer.add_text("config", indent(config, "    "))  # Markdown's block of code
            writer.add_custom_scalars({"train and val": curves})

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        split, _, metric = _monitored(trainer).rpartition("/")
        best = f"{split}/best_{metric}"
        metrics = {best: _best_score(trainer)} | {
            name: trainer.callback_metrics[name].item() for name in (f"test/{metric}", "test/loss")
        }
        for writer in _writers(trainer):
            writer.add_scalar(best, metrics[best], trainer.global_step)
            # Lightning's own log_hyperparams would add a second, wrong point at step 0 to each metric's curve.
            for summary in hparams(self.choices, metrics):
                writer._get_file_writer().add_summary(summary)
            writer.flush()


def _writers(trainer: pl.Trainer) -> list[SummaryWriter]:
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def _checkpoint(trainer: pl.Trainer) -> ModelCheckpoint | None:
    kept = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    return kept[0] if kept else None


def _monitored(trainer: pl.Trainer) -> str:
    checkpoint = _checkpoint(trainer)
    return checkpoint.monitor if checkpoint is not None and checkpoint.monitor else "val/loss"


def _best_score(trainer: pl.Trainer) -> float:
    checkpoint = _checkpoint(trainer)
    score = checkpoint.best_model_score if checkpoint is not None else None
    return float("nan") if score is None else score.item()
