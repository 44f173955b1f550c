"""Config, settings and results for the loggers; TensorBoard has pages for each."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from vision_lab.callbacks.pruning import PruneTrial
from vision_lab.callbacks.step_logger import logged_step
from vision_lab.core.signals import Interrupted
from vision_lab.core.text import escape_markdown
from vision_lab.loggers.event_files import HPARAMS_FOLDER, EventFile, name_results
from vision_lab.loggers.images import log_settings
from vision_lab.tasks.base import Task

CUSTOM_SCALARS_TITLE = "training and validation"
"""Title of the charts on TensorBoard's CUSTOM SCALARS page."""

HparamValue = str | int | float | bool


class HparamsLogger(pl.Callback):
    """Writes the config, charts, test metrics, and a row of TensorBoard's HPARAMS page.

    The row is written when training starts; its metrics are those of the best checkpoint so far.

    Args:
        hparams: the few settings that distinguish this run from others.
    """

    def __init__(self, hparams: Mapping[str, Any]) -> None:
        self.hparams: dict[str, HparamValue] = {}
        self.show(hparams)
        self.session: EventFile | None = None

    def show(self, hparams: Mapping[str, Any]) -> None:
        """Show more settings.

        Args:
            hparams: the settings by name.
        """
        for name, value in hparams.items():
            self.hparams[name] = value if isinstance(value, HparamValue) else str(value)

    def on_fit_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        if not trainer.is_global_zero:
            return
        if _tensorboard_writers(trainer):
            self.session = EventFile(Path(trainer.default_root_dir) / HPARAMS_FOLDER)
            self.session.start_session(self.hparams)
            self.session.flush()
        is_resumed = trainer.ckpt_path is not None
        if is_resumed:
            return
        config = (Path(trainer.default_root_dir) / "config.yaml").read_text(encoding="utf-8")
        charts = {}
        for name, curves in _list_charts(cast(Task, pl_module)).items():
            charts[name] = ["Multiline", [f"^{curve}$" for curve in curves]]
        for logger in trainer.loggers:
            log_settings(logger, self.hparams)
        for writer in _tensorboard_writers(trainer):
            writer.add_text("config", indent(config, "    "))  # a code block in Markdown
            writer.add_custom_scalars({CUSTOM_SCALARS_TITLE: charts})

    def on_train_epoch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        self._add_best(trainer, cast(Task, pl_module))

    def on_fit_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        self._add_best(trainer, cast(Task, pl_module))
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            if isinstance(callback, PruneTrial) and callback.is_pruned:  # there will be no test
                self._end("finished")

    def on_test_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        if not trainer.is_global_zero:
            return
        task = cast(Task, pl_module)
        metrics = {f"test/{name}": value for name, value in task.scalar_metrics("test").items()}
        for writer in _tensorboard_writers(trainer):
            writer.add_text("test", _make_table(metrics), logged_step(trainer))
            writer.flush()
        if self.session is not None:
            metric = task.monitor.rpartition("/")[2]
            names = dict.fromkeys([f"test/{metric}", "test/loss"])
            self.session.add_scalars(name_results(metrics, names), step=logged_step(trainer))
        self._end("finished")

    def on_exception(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        exception: BaseException,
    ) -> None:
        if not isinstance(exception, Interrupted | KeyboardInterrupt):  # those can be resumed
            self._end("failed")

    def _add_best(self, trainer: pl.Trainer, task: Task) -> None:
        """Write the monitored metric of the best checkpoint so far."""
        if self.session is None:
            return
        for checkpoint in trainer.checkpoint_callbacks:
            if not isinstance(checkpoint, ModelCheckpoint) or checkpoint.monitor != task.monitor:
                continue
            if checkpoint.best_model_score is not None:
                best = {task.monitor: checkpoint.best_model_score.item()}
                self.session.add_scalars(name_results(best, best), step=logged_step(trainer))
                self.session.flush()

    def _end(self, status: Any) -> None:
        if self.session is not None:
            self.session.end_session(status)
            self.session.close()
            self.session = None


def _list_charts(task: Task) -> dict[str, list[str]]:
    """Return the curves of each chart: those of the report, and each metric in both splits."""
    monitor = task.monitor.rpartition("/")[2]
    charts = task.report.charts(monitor, added=task.added_metrics)
    for name in sorted(set(task.metric_names("train")) & set(task.metric_names("val"))):
        charts.setdefault(name, [f"train/{name}", f"val/{name}"])
    return charts


def _make_table(metrics: Mapping[str, float]) -> str:
    lines = ["| metric | value |", "|---|---|"]
    for name, value in metrics.items():
        lines.append(f"| {escape_markdown(name)} | {value:.6g} |")
    return "\n".join(lines)


def _tensorboard_writers(trainer: pl.Trainer) -> list[SummaryWriter]:
    writers = []
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            writers.append(logger.experiment)
    return writers
