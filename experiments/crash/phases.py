"""Report the phase of a run to the file named by the environment variable PHASE."""

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from vision_lab.training.checkpoint_io import AtomicCheckpointIO


def report(phase: str) -> None:
    """Write the phase; a write to a file survives the death of the process."""
    if "PHASE" in os.environ:
        with Path(os.environ["PHASE"]).open("r+") as file:
            file.write(phase.ljust(40))


class Phase(pl.Callback):
    """Reports the start and end of training, validation and test."""

    def on_train_batch_start(self, *_: Any) -> None:
        report("training")

    def on_train_batch_end(self, *_: Any) -> None:
        report("between steps")

    def on_train_epoch_end(self, *_: Any) -> None:
        report("end of an epoch")

    def on_validation_start(self, *_: Any) -> None:
        report("validation")

    def on_validation_end(self, *_: Any) -> None:
        report("end of validation")

    def on_test_start(self, *_: Any) -> None:
        report("test")

    def on_test_end(self, *_: Any) -> None:
        report("after the test")


class ReportingCheckpointIO(AtomicCheckpointIO):
    """Reports when a checkpoint is written or read."""

    def write(self, state: Any, folder: Path, name: str, *, keep_as: str | None) -> None:
        """Report both ends of writing, which is in another thread than training."""
        report(f"writing {Path(name).name}")
        super().write(state, folder, name, keep_as=keep_as)
        report("after a checkpoint")

    def load_checkpoint(self, path: str | Path, *arguments: Any, **options: Any) -> dict[str, Any]:
        report("reading a checkpoint")
        return super().load_checkpoint(path, *arguments, **options)
