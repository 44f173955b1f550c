"""What a run was told and what came of it, for TensorBoard's TEXT and HPARAMS pages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

Choice = str | int | float | bool


class RunCard(pl.Callback):
    """Writes the config as text when training starts, and one HPARAMS row after the test.

    Args:
        choices: the handful of choices that tell this run from others.
    """

    def __init__(self, choices: Mapping[str, Any]) -> None:
        self.choices: dict[str, Choice] = {
            name: value if isinstance(value, Choice) else str(value) for name, value in choices.items()
        }

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        config = Path(trainer.default_root_dir) / "config.yaml"
        if trainer.is_global_zero and config.is_file():
            text = "\n".join("    " + line for line in config.read_text(encoding="utf-8").splitlines())
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_text("config", text)  # indented by four: Markdown's block of code

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("test/")}
        for checkpoint in trainer.checkpoint_callbacks:
            if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_score is not None:
                metrics[f"best/{checkpoint.monitor}"] = checkpoint.best_model_score.item()
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                writer = logger.experiment
                for name in (name for name in metrics if name.startswith("best/")):
                    writer.add_scalar(name, metrics[name], trainer.global_step)
                # Lightning's own log_hyperparams would add a second, wrong point at step 0 to each metric's curve.
                for summary in hparams(self.choices, metrics):
                    writer.file_writer.add_summary(summary)
                writer.flush()
