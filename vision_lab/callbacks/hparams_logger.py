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

from vision_lab.callbacks.step_logger import logged_step
from vision_lab.tasks.base import Task

CUSTOM_SCALARS_TITLE = "side by side"
"""The title of the charts on TensorBoard's CUSTOM SCALARS page."""

HparamValue = str | int | float | bool


class HparamsLogger(pl.Callback):
    """Writes the config as text and charts of several curves when training starts, one HPARAMS row after the test.

    Args:
        choices: the handful of choices that tell this run from others.
    """

    def __init__(self, hparams: Mapping[str, Any]) -> None:
        self.hparams: dict[str, HparamValue] = {
            name: value if isinstance(value, HparamValue) else str(value)
            for name, value in hparams.items()
        }

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        if (
            not trainer.is_global_zero or trainer.ckpt_path is not None
        ):  # a run that goes on has its card
            return
        config = (Path(trainer.default_root_dir) / "config.yaml").read_text(encoding="utf-8")
        curves = {
            name: ["Multiline", [f"^{curve}$" for curve in together]]
            for name, together in pl_module.tensorboard_charts().items()
        }
        for writer in _writers(trainer):
            writer.add_text("config", indent(config, "    "))  # Markdown's block of code
            writer.add_custom_scalars({CUSTOM_SCALARS_TITLE: curves})

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        if not trainer.is_global_zero:
            return
        split, _, metric = pl_module.monitor.rpartition("/")
        best = f"{split}/best_{metric}"
        measured = trainer.callback_metrics
        metrics = {
            name: measured[name].item()
            for name in (f"test/{metric}", "test/loss")
            if name in measured
        }
        for checkpoint in trainer.checkpoint_callbacks:
            if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_score is not None:
                metrics = {best: checkpoint.best_model_score.item()} | metrics
        for writer in _writers(trainer):
            if best in metrics:
                writer.add_scalar(best, metrics[best], logged_step(trainer))
            # Lightning's own log_hyperparams would add a second, wrong point at step 0 to each metric's curve.
            for summary in hparams(self.hparams, metrics):
                writer._get_file_writer().add_summary(summary)
            writer.flush()


def _writers(trainer: pl.Trainer) -> list[SummaryWriter]:
    return [
        logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)
    ]
