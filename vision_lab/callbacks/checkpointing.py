"""Checkpoints of the best network, and of the state from which a run resumes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint

from vision_lab.callbacks.step_logger import is_log_step, logged_step
from vision_lab.core import signals
from vision_lab.core.arguments import Count, NonNegative, Range, fits
from vision_lab.core.batch import Batch
from vision_lab.loggers.tensorboard import ResumableTensorBoardLogger
from vision_lab.tasks.base import Task
from vision_lab.training.checkpoint_io import FOLDER, LAST

STATE_KEY = "resume"
"""Key of a checkpoint under which ``ResumeCheckpoint`` stores its state."""

CHECKPOINT_TYPES: dict[str, type] = {
    "pytorch-lightning_version": str,
    "state_dict": dict,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "callbacks": dict,
    "metric_states": list,
    STATE_KEY: dict,
}
"""Types of what every checkpoint for resuming contains."""

_NonNegativeInt = Annotated[int, Range(ge=0)]

STATE_TYPES: dict[str, Any] = {
    "position": tuple[_NonNegativeInt, _NonNegativeInt],
    "step": _NonNegativeInt,
    "should_stop": bool,
    "processes": Count,
    "seconds": NonNegative,
    "logs": dict[str, _NonNegativeInt],
}
"""Types of the state under ``STATE_KEY``."""


class BestCheckpoint(ModelCheckpoint):
    """Saves the best checkpoint as ``checkpoints/best.ckpt`` in the run folder.

    Its state contains file names instead of absolute paths, so that run folders can be moved.

    Args:
        monitor: name of the metric to compare.
        mode: whether the best value is the largest ("max") or the smallest ("min").
        save_weights_only: whether to leave out what only training requires.
    """

    def __init__(
        self, *, monitor: str, mode: Literal["min", "max"], save_weights_only: bool = False
    ) -> None:
        super().__init__(
            monitor=monitor,
            mode=mode,
            save_weights_only=save_weights_only,
            filename="best",
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        stage: str,
    ) -> None:
        self.dirpath = os.path.realpath(Path(trainer.default_root_dir) / FOLDER)
        super().setup(trainer, pl_module, stage)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        del state["dirpath"]
        best = state.pop("best_k_models")
        for key, value in state.items():
            if key.endswith("_path"):
                state[key] = Path(value).name
        return state | {"best": {Path(path).name: score for path, score in best.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        folder = Path(self.dirpath or "")
        state = dict(state_dict)
        for key, value in state.items():
            if key.endswith("_path") and value:
                state[key] = str(folder / Path(value).name)
        best = {str(folder / Path(name).name): score for name, score in state["best"].items()}
        super().load_state_dict(state | {"best_k_models": best})


class ResumeCheckpoint(Checkpoint):
    """Saves ``checkpoints/last.ckpt``, from which a run resumes bit-exactly, and the previous one.

    A checkpoint is saved between epochs, after training and, within an epoch, every given number
    of steps or minutes. It contains the whole state of training only if an optimizer step is
    complete and no validation is about to start; checkpoints that are due wait for such a batch.
    When the command is interrupted (Ctrl-C, SIGTERM), it ends after the next checkpoint.

    Args:
        every_n_steps: number of batches between checkpoints within an epoch; None to disable.
        every_n_minutes: minutes of training between checkpoints; None to disable.
        delete_when_finished: whether to delete all checkpoints once the run is finished, which
            leaves ``model.pth``. It can then not be extended.
    """

    def __init__(
        self,
        *,
        every_n_steps: Count | None = None,
        every_n_minutes: NonNegative | None = None,
        delete_when_finished: bool = False,
    ) -> None:
        self.every_n_steps = every_n_steps
        self.delete_when_finished = delete_when_finished
        self.every_n_minutes = every_n_minutes
        self.position: tuple[int, int] = (0, 0)
        """(epoch, completed batches of it) of the latest checkpoint."""
        self.path: Path | None = None
        self.step = 0
        self.started_at = time.monotonic()
        self.saved_at = 0.0

    def on_fit_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        if self.position == (0, 0):
            for logger in _tensorboard_loggers(trainer):
                logger.truncate_to({}, step=0)  # curves of a command without a checkpoint

    def on_sanity_check_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        signals.defer_signals(False)

    def on_test_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        signals.defer_signals(False)

    def on_train_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        self.saved_at = time.monotonic()
        signals.defer_signals(True)

    def on_train_epoch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        if self.position != (trainer.current_epoch, 0):
            self._save(trainer, batches=0)
            _raise_if_interrupted(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        batches = batch_idx + 1
        due_by_steps = self._is_due_by_steps(trainer, batches)
        if trainer.world_size > 1 and not due_by_steps and not is_log_step(trainer, batch_idx):
            return  # ranks agree on clocks and signals by a message, too slow for every step
        interrupted = _any_rank(trainer, signals.signal_pending())
        due = interrupted or due_by_steps or _any_rank(trainer, self._is_due_by_time())
        if due and _is_resumable(trainer, pl_module):
            self._save(trainer, batches=batches)
            if interrupted:
                raise signals.Interrupted

    def on_train_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        # In the epoch in which a run resumes, Lightning would skip the step of ReduceLROnPlateau,
        # as if there had been no validation.
        trainer.fit_loop._restarting = False

    def on_train_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        self._save(trainer, batches=0)
        signals.defer_signals(False)
        _raise_if_interrupted(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        signals.defer_signals(False)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        logs: dict[str, int] = {}
        for logger in _tensorboard_loggers(trainer):
            logs |= logger.file_sizes()
        checkpoint[STATE_KEY] = {
            "position": self.position,
            "step": logged_step(trainer),
            "should_stop": trainer.should_stop,
            "processes": trainer.world_size,
            "seconds": time.monotonic() - self.started_at,
            "logs": logs,
        }
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for counts in (progress["current"], progress["total"]):
            # Between two epochs: as if the next one were not prepared. (Lightning's own end of an
            # epoch is no alternative: ReduceLROnPlateau has not stepped by then.)
            counts["ready"] = counts["started"]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        state = checkpoint[STATE_KEY]
        self.position = state["position"]
        self.started_at -= state["seconds"]
        self.path = Path(str(trainer.ckpt_path))
        self.step = state["step"]
        trainer.should_stop = state["should_stop"]  # of EarlyStopping; Lightning does not store it
        for logger in _tensorboard_loggers(trainer):
            logger.truncate_to(state["logs"], step=state["step"])

    def _is_due_by_steps(
        self,
        trainer: pl.Trainer,
        batches: int,
    ) -> bool:
        epoch, saved_batches = self.position
        if epoch != trainer.current_epoch:
            saved_batches = 0
        return self.every_n_steps is not None and batches - saved_batches >= self.every_n_steps

    def _is_due_by_time(self) -> bool:
        if self.every_n_minutes is None:
            return False
        return time.monotonic() - self.saved_at >= 60 * self.every_n_minutes

    def _save(
        self,
        trainer: pl.Trainer,
        *,
        batches: int,
    ) -> None:
        self.position = (trainer.current_epoch, batches)
        path = Path(trainer.default_root_dir) / FOLDER / LAST
        trainer.save_checkpoint(path)
        self.path, self.step = path, logged_step(trainer)
        self.saved_at = time.monotonic()


def find_problem(task: Task, checkpoint: Any) -> str | None:
    """Return why training of a task cannot resume from a checkpoint, or None if it can.

    Args:
        task: the task.
        checkpoint: the content of a checkpoint file.
    """
    if not isinstance(checkpoint, dict):
        return f"it contains a {type(checkpoint).__name__}, not a training state"
    missing = []
    for key in CHECKPOINT_TYPES:
        if key not in checkpoint:
            missing.append(key)
    if missing:
        return f"it is not a training state: {', '.join(missing)} is missing"
    invalid = []
    for key, kind in CHECKPOINT_TYPES.items():
        if not isinstance(checkpoint[key], kind):
            invalid.append(key)
    if not invalid:
        state = checkpoint[STATE_KEY]
        keys = []
        for key, annotation in STATE_TYPES.items():
            if not fits(state.get(key), annotation):
                keys.append(key)
        invalid = [f"{STATE_KEY}.{key}" for key in keys]
    if invalid:
        return f"it is not a training state: {', '.join(invalid)} has another type"
    return find_weights_problem(task, checkpoint)


def find_weights_problem(task: Task, checkpoint: Any) -> str | None:
    """Return why a checkpoint does not contain the weights of a task, or None if it does.

    Args:
        task: the task.
        checkpoint: the content of a checkpoint file.
    """
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        return f"it contains a {type(checkpoint).__name__} without weights"
    if not task.learns_by_gradients:
        return None  # the shapes of its parameters depend on the data
    expected = {name: value.shape for name, value in task.state_dict().items()}
    shapes = {
        name: getattr(value, "shape", None) for name, value in checkpoint["state_dict"].items()
    }
    if shapes == expected:
        return None
    names = expected.keys() | shapes.keys()
    mismatched = []
    for name in sorted(names, key=str):
        if expected.get(name) != shapes.get(name):
            mismatched.append(str(name))
    return f"it is from another network: {', '.join(mismatched[:3])} do not match"


def _any_rank(trainer: pl.Trainer, condition: bool) -> bool:
    """Return whether a condition is true on any rank, so that all of them do the same."""
    return trainer.strategy.reduce_boolean_decision(condition, all=False)


def _raise_if_interrupted(trainer: pl.Trainer) -> None:
    if _any_rank(trainer, signals.signal_pending()):
        raise signals.Interrupted


def _is_resumable(trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
    """Return whether the last batch completed an optimizer step and is followed by another batch.

    After the last batch of an epoch, or before a validation, Lightning would resume without that
    validation.
    """
    loop = trainer.fit_loop.epoch_loop
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    if loop._should_accumulate() or loop._should_check_val_fx(fetcher) or loop._is_training_done:
        return False
    return cast(Task, pl_module).step_is_complete


def _tensorboard_loggers(trainer: pl.Trainer) -> list[ResumableTensorBoardLogger]:
    if not trainer.is_global_zero:
        return []
    loggers = []
    for item in trainer.loggers:
        if isinstance(item, ResumableTensorBoardLogger):
            loggers.append(item)
    return loggers
