"""What is kept of a training: the best network, and the state it can go on from."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint

from vision_lab.callbacks.step_logger import is_log_step, logged_step
from vision_lab.core import signals
from vision_lab.core.arguments import Count, NonNegative, Range, fits
from vision_lab.core.batch import Batch
from vision_lab.loggers.tensorboard import ResumableTensorBoardLogger
from vision_lab.tasks.base import Task
from vision_lab.training.checkpoint_io import FOLDER, LAST

STATE_KEY = "last"
"""Under which a checkpoint says where the run stands."""

STATE_KEYS: dict[str, type] = {
    "pytorch-lightning_version": str,
    "state_dict": dict,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "callbacks": dict,
    "measured": list,
    STATE_KEY: dict,
}
"""What every training's state holds."""

PLACE_KEYS: dict[str, Any] = {
    "stands_at": tuple[Annotated[int, Range(ge=0)], Annotated[int, Range(ge=0)]],
    "steps_made": Annotated[int, Range(ge=0)],
    "should_stop": bool,
    "processes": Count,
    "seconds": NonNegative,
    "logs": dict[str, Annotated[int, Range(ge=0)]],
}
"""What it says of where the run stands."""


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/best.ckpt`` in the run's folder, which may move: the callback's own state names no place.

    Args:
        monitor: the metric that says which is best.
        mode: whether more of it is better ("max") or less ("min").
        save_weights_only: leave out what only a training needs.
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

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.dirpath = os.path.realpath(Path(trainer.default_root_dir) / FOLDER)
        super().setup(trainer, pl_module, stage)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        del state["dirpath"]
        best = {Path(path).name: score for path, score in state.pop("best_k_models").items()}
        return {
            name: Path(v).name if name.endswith("_path") else v for name, v in state.items()
        } | {"best": best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        folder = Path(self.dirpath or "")
        state = {
            n: str(folder / Path(v).name) if n.endswith("_path") and v else v
            for n, v in state_dict.items()
        }
        best = {str(folder / Path(name).name): score for name, score in state_dict["best"].items()}
        super().load_state_dict(state | {"best_k_models": best})


class ResumeCheckpoint(Checkpoint):
    """Keeps ``checkpoints/last.ckpt``, from which a run goes on to the bit, and the one before it.

    It is written between epochs, after training, and within an epoch every so many steps or minutes, where a step of
    the optimiser is complete and no validation is about to begin: only there is all of a training's state in its parts.
    When the command is asked to end (Ctrl-C, SIGTERM), that is done after the next such moment.

    Args:
        every_n_steps: batches; null: not by steps.
        minutes: of training; null: not by time.
    """

    def __init__(
        self, *, every_n_steps: Count | None = None, every_n_minutes: NonNegative | None = None
    ) -> None:
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.position: tuple[int, int] = (0, 0)
        """(epoch, batches of it) of the newest checkpoint."""
        self.path: Path | None = None
        self.step = 0
        self.began = time.monotonic()
        self.saved_at = 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.position == (0, 0):
            for logger in _tensorboard_loggers(trainer):
                logger.truncate_to({}, step=0)  # of a life that ended before its first checkpoint

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        signals.defer_signals(False)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        signals.defer_signals(False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.saved_at = time.monotonic()
        signals.defer_signals(True)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.position != (trainer.current_epoch, 0):
            self._save(trainer, batches=0)
            _raise_if_interrupted(_any_rank(trainer, signals.signal_pending()))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        batches = batch_idx + 1
        due = self._steps_due(trainer, batches)
        if trainer.world_size > 1 and not due and not is_log_step(trainer, batch_idx):
            return  # processes agree on clocks and signals by a message, which is not worth its time at each step
        asked = _any_rank(trainer, signals.signal_pending())
        late = (
            self.every_n_minutes is not None
            and time.monotonic() - self.saved_at >= 60 * self.every_n_minutes
        )
        if (asked or due or _any_rank(trainer, late)) and _is_resumable(trainer, pl_module):
            self._save(trainer, batches=batches)
            _raise_if_interrupted(asked)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # In the epoch in which a run goes on, Lightning would leave out a plateau schedule's step, as if there had been
        # no validation since.
        trainer.fit_loop._restarting = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer, batches=0)
        signals.defer_signals(False)
        _raise_if_interrupted(_any_rank(trainer, signals.signal_pending()))

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        signals.defer_signals(False)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        logs = {
            name: size
            for logger in _tensorboard_loggers(trainer)
            for name, size in logger.file_sizes().items()
        }
        checkpoint[STATE_KEY] = {
            "stands_at": self.position,
            "steps_made": logged_step(trainer),
            "should_stop": trainer.should_stop,
            "processes": trainer.world_size,
            "seconds": time.monotonic() - self.began,
            "logs": logs,
        }
        epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for count in (epoch["current"], epoch["total"]):
            # Between two epochs: as if the next had not been thought of. (At Lightning's own end of an epoch a plateau
            # schedule has not made its step yet.)
            count["ready"] = count["started"]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        state = checkpoint[STATE_KEY]
        self.position = state["stands_at"]
        self.began -= state["seconds"]
        self.path, self.step = Path(str(trainer.ckpt_path)), state["steps_made"]
        trainer.should_stop = state[
            "should_stop"
        ]  # early stopping had decided, and Lightning does not keep it
        for logger in _tensorboard_loggers(trainer):
            logger.truncate_to(state["logs"], step=state["steps_made"])

    def _steps_due(self, trainer: pl.Trainer, batches: int) -> bool:
        epoch, behind = self.position
        since = batches - (behind if epoch == trainer.current_epoch else 0)
        return self.every_n_steps is not None and since >= self.every_n_steps

    def _save(self, trainer: pl.Trainer, *, batches: int) -> None:
        self.position = (trainer.current_epoch, batches)
        path = Path(trainer.default_root_dir) / "checkpoints" / LAST
        trainer.save_checkpoint(path)
        self.path, self.step = path, logged_step(trainer)
        self.saved_at = time.monotonic()


def find_problem(task: Task, checkpoint: Any) -> str | None:
    """Say why a checkpoint, as it was read, is none that a training of this task can go on from; None if it is one."""
    if not isinstance(checkpoint, dict):
        return f"it holds a {type(checkpoint).__name__} and no training's state"
    missing = [key for key in STATE_KEYS if key not in checkpoint]
    if missing:
        return f"it is no training's state: it has no {', '.join(missing)}"
    wrong = [key for key, kind in STATE_KEYS.items() if not isinstance(checkpoint[key], kind)]
    if not wrong:
        wrong = [
            f"{STATE_KEY}.{key}"
            for key, kind in PLACE_KEYS.items()
            if not fits(checkpoint[STATE_KEY].get(key), kind)
        ]
    if wrong:
        return f"it is no training's state: {', '.join(wrong)} is of another kind"
    return find_weights_problem(task, checkpoint)


def find_weights_problem(task: Task, checkpoint: Any) -> str | None:
    """Say why a checkpoint, as it was read, does not hold the weights of this task; None if it does."""
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        return f"it holds a {type(checkpoint).__name__} without weights"
    own = {name: value.shape for name, value in task.state_dict().items()}
    state = {
        name: getattr(value, "shape", None) for name, value in checkpoint["state_dict"].items()
    }
    if own == state:
        return None
    differing = sorted(
        str(name) for name in own.keys() | state.keys() if own.get(name) != state.get(name)
    )
    return f"it is of another network: {', '.join(differing[:3])} differ"


def _any_rank(trainer: pl.Trainer, decision: bool) -> bool:
    """Whether any process says so: they must all do the same."""
    return trainer.strategy.reduce_boolean_decision(decision, all=False)


def _raise_if_interrupted(asked: bool) -> None:
    if asked:
        raise signals.Interrupted


def _is_resumable(trainer: pl.Trainer, task: pl.LightningModule) -> bool:
    """Whether the batch that has just ended completes a step of the optimiser and is followed by another batch.

    Lightning would go on from its last batch, or from one that a validation follows, without that validation.
    """
    loop = trainer.fit_loop.epoch_loop
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    assert isinstance(task, Task)
    waits = (
        loop._should_accumulate() or loop._should_check_val_fx(fetcher) or loop._is_training_done
    )
    return task.step_is_complete and not waits


def _tensorboard_loggers(trainer: pl.Trainer) -> list[ResumableTensorBoardLogger]:
    return [
        logger
        for logger in trainer.loggers
        if isinstance(logger, ResumableTensorBoardLogger) and trainer.is_global_zero
    ]
