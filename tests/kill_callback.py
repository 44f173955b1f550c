"""Ways to end a run, set by KILL="<place>:<count>" for the RUN-th run of the process."""

import os
import signal
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from vision_lab.core.errors import UserError
from vision_lab.training.checkpoint_io import AtomicCheckpointIO


class Killed(BaseException):
    """Raised in place of SIGKILL within this process."""


_seen: dict[str, int] = {}
_runs = [0]


def reset() -> None:
    """Count from the beginning, as a new process does."""
    _seen.clear()
    _runs[0] = 0


def passing(place: str) -> bool:
    """Return whether the run ends here."""
    wanted, _, count = os.environ.get("KILL", "").partition(":")
    _seen[place] = _seen.get(place, 0) + 1
    run = int(os.environ.get("RUN", _runs[0]))
    return wanted == place and _seen[place] == int(count) and _runs[0] == run


def end() -> None:
    """End by SIGKILL if the variable DEATH says so, else by an exception."""
    _seen.clear()
    if os.environ.get("DEATH") == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    raise Killed


class Kill(pl.Callback):
    """Ends the run at the end of a step, within validation, after an epoch, or within the test."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            _seen.clear()
            _runs[0] += 1

    def on_train_batch_end(self, *_: Any) -> None:
        if passing("step"):
            end()

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if not trainer.sanity_checking and passing("validation"):
            end()

    def on_train_epoch_end(self, *_: Any) -> None:
        if passing("epoch"):
            end()

    def on_test_batch_end(self, *_: Any) -> None:
        if passing("test"):
            end()


class KillingCheckpoints(AtomicCheckpointIO):
    """Ends the run when half of a checkpoint is written."""

    def write(self, state: Any, folder: Path, name: str, *, keep_as: str | None) -> None:
        """Write half of the checkpoint; this process may end by an exception in this thread."""
        path = folder / name
        if passing(path.stem):
            part = path.with_name(path.name + ".part")
            part.parent.mkdir(exist_ok=True)
            torch.save(state, part)
            os.truncate(part, part.stat().st_size // 2)
            end()
        super().write(state, folder, name, keep_as=keep_as)


class Disturb(pl.Callback):
    """Ends the run of one seed by SIGKILL, once, and that of another one by an error, always.

    Args:
        killed: seed of the run that is killed in its second epoch.
        failing: seed of the run that fails.
        folder: folder to which one line is added for each training that starts.
    """

    def __init__(self, *, killed: int, failing: int, folder: str) -> None:
        self.killed = killed
        self.failing = failing
        self.folder = Path(folder)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with (self.folder / "trainings").open("a") as file:
            file.write(f"{pl_module.seed} from {trainer.current_epoch}\n")
        if pl_module.seed == self.failing:
            raise UserError("this seed fails")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        marker = self.folder / "killed"
        if pl_module.seed == self.killed and trainer.current_epoch == 1 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
