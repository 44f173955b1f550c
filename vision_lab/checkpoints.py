"""Checkpoint files: written whole, read without running anything in them, and the newest one that can be read."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from vision_lab.files import replace

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"


class WholeCheckpoints(TorchCheckpointIO):
    """How Lightning writes and reads checkpoints here.

    A file is on the disk as a whole before it takes its name, and ``last.ckpt`` makes the one before it
    ``previous.ckpt``. Lightning's own way holds a second copy of everything in memory, and trusts what it reads.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        save(checkpoint, path, keep=path.with_name(PREVIOUS) if path.name == LAST else None)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        return load(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def save(content: Any, path: Path, *, keep: Path | None = None) -> None:
    """Write with ``torch.save``, whole or not at all; ``keep`` is the name that the file before gets.

    Raises:
        OSError: where there is no room.
    """

    def fill(file: Any) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's own words for what the file system said
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        if keep is not None and path.exists():
            file.flush()
            os.fsync(file.fileno())  # before the one that was there gives up its name
            path.replace(keep)

    replace(path, fill)


def load(path: Path, *, lazily: bool = False) -> Any:
    """Read tensors and plain values, on the CPU; nothing that would run code.

    Args:
        path: the file.
        lazily: leave the tensors on the disk until they are used.

    Raises:
        pickle.UnpicklingError: where there is anything else in it.
    """
    return torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)


def newest(folder: Path, damaged: Callable[[Path, str], None]) -> Path | None:
    """The newest checkpoint of a run that a training can go on from; None where there is none.

    Args:
        folder: the run's folder.
        damaged: told of each file that cannot be used, and why.
    """
    for name in (LAST, PREVIOUS):
        path = folder / "checkpoints" / name
        if path.is_file():
            reason = damage(path)
            if reason is None:
                return path
            damaged(path, reason)
    return None


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file; None where all of it can be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # torch writes checksums but does not look at them
        if broken:
            return f"its checksum of {broken} is wrong"
        load(path, lazily=True)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        return f"it is torn: {str(error).strip().splitlines()[0]}"
    except pickle.UnpicklingError:
        return "it holds more than tensors and plain values, which could run code"
    return None
