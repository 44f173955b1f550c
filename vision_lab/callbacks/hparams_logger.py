"""Config, settings and results for the loggers; TensorBoard has pages for each."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams as hparams_summary

from vision_lab.callbacks.step_logger import logged_step
from vision_lab.loggers.images import log_settings
from vision_lab.tasks.base import Task

CUSTOM_SCALARS_TITLE = "training and validation"
"""Title of the charts on TensorBoard's CUSTOM SCALARS page."""

HparamValue = str | int | float | bool


class HparamsLogger(pl.Callback):
    """Writes the config and charts when training starts, and an HPARAMS row after the test.

    Args:
        hparams: the few settings that distinguish this run from others.
    """

    def __init__(self, hparams: Mapping[str, Any]) -> None:
        self.hparams: dict[str, HparamValue] = {}
        for name, value in hparams.items():
            self.hparams[name] = value if isinstance(value, HparamValue) else str(value)

    def on_fit_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        is_resumed = trainer.ckpt_path is not None
        if not trainer.is_global_zero or is_resumed:
            return
        config = (Path(trainer.default_root_dir) / "config.yaml").read_text(encoding="utf-8")
        task = cast(Task, pl_module)
        monitor = task.monitor.rpartition("/")[2]
        charts = {}
        for name, curves in task.report.charts(monitor, added=task.added_metrics).items():
            charts[name] = ["Multiline", [f"^{curve}$" for curve in curves]]
        for logger in trainer.loggers:
            log_settings(logger, self.hparams)
        for writer in _tensorboard_writers(trainer):
            writer.add_text("config", indent(config, "    "))  # a code block in Markdown
            writer.add_custom_scalars({CUSTOM_SCALARS_TITLE: charts})

    def on_test_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        if not trainer.is_global_zero:
            return
        split, _, metric = cast(Task, pl_module).monitor.rpartition("/")
        best = f"{split}/best_{metric}"
        metrics = {}
        for checkpoint in trainer.checkpoint_callbacks:
            if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_score is not None:
                metrics[best] = checkpoint.best_model_score.item()
        for name in (f"test/{metric}", "test/loss"):
            if name in trainer.callback_metrics:
                metrics[name] = trainer.callback_metrics[name].item()
        for writer in _tensorboard_writers(trainer):
            if best in metrics:
                writer.add_scalar(best, metrics[best], logged_step(trainer))
            # Lightning's log_hyperparams would add a wrong point at step 0 to each metric's curve.
            for summary in hparams_summary(self.hparams, metrics):
                writer._get_file_writer().add_summary(summary)
            writer.flush()


def _tensorboard_writers(trainer: pl.Trainer) -> list[SummaryWriter]:
    loggers = trainer.loggers
    writers = []
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            writers.append(logger.experiment)
    return writers
