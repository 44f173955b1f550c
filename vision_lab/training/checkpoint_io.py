"""Checkpoint files: written whole, read without running anything in them, and the newest one that can be read."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from torch import Tensor

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import delete_file, format_path, reject_compressed, replace_file
from vision_lab.core.text import first_line

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
FOLDER = "checkpoints"

LOAD_ERRORS = (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError)
"""Errors of torch and Lightning that load a state which has another structure."""

UNREADABLE = (zipfile.BadZipFile, EOFError, OSError, *LOAD_ERRORS)
"""What torch raises for a file that it did not write, or not to the end."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """How Lightning writes and reads checkpoints here.

    A file is on the disk as a whole before it takes its name, and ``last.ckpt`` makes the one before it
    ``previous.ckpt``. Lightning's own way holds a second copy of everything in memory, and trusts what it reads.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        folder, name = _below(Path(path))
        save(checkpoint, folder, name, keep_as=PREVIOUS if Path(path).name == LAST else None)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        return load(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        delete_file(*_below(Path(path)))


def _below(path: Path) -> tuple[Path, str]:
    """A checkpoint's run folder and its name below that; of one that lies elsewhere, its own folder."""
    if path.parent.name == FOLDER:
        return path.parents[1], f"{FOLDER}/{path.name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent, path.name


def save(content: Any, folder: Path, name: str, *, keep_as: str | None = None) -> None:
    """Write a file below a folder with ``torch.save``, as a whole or not at all.

    Args:
        content: tensors and plain values.
        folder: the folder of the command.
        name: path of the file below it.
        keep_as: name that the old file gets; None drops it.

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

    replace_file(folder, name, fill, keep_as=keep_as)


def load(path: Path, *, lazily: bool = False) -> Any:
    """Read tensors and plain values, on the CPU; nothing that would run code.

    Args:
        path: the file.
        lazily: leave the tensors on the disk until they are used.

    Raises:
        pickle.UnpicklingError: where there is anything else in it.
        ValueError: where it is compressed.
    """
    reject_compressed(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)


def load_weights(take: Callable[[Mapping[str, Tensor]], object], path: Path) -> None:
    """Hand the weights in a file to a network.

    Args:
        take: gets the state dict, and raises where it does not fit.
        path: the file.

    Raises:
        ConfigurationError: if the file holds no weights, or none for this network, or some that are not finite.
    """
    shown = format_path(path)
    cure = "put the run's own model.pth back, or repeat the run's command with force=true"
    try:
        state = load(path)
    except pickle.UnpicklingError:
        raise ConfigurationError(
            f"{shown} holds more than weights, which could run code: {cure}"
        ) from None
    except UNREADABLE as error:
        raise ConfigurationError(f"{shown} cannot be read ({first_line(error)}): {cure}") from error
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise ConfigurationError(
            f"{shown} holds no weights by name, but a {type(state).__name__}: {cure}"
        )
    try:
        take(state)
    except (RuntimeError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{shown} does not fit the network of the config: {error}"
        ) from error
    bad = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if bad:
        raise ConfigurationError(
            f"{shown} holds weights that are not finite: {', '.join(bad[:5])}: {cure}"
        )


def latest_checkpoint(
    folder: Path,
    damaged: Callable[[str, str], None],
    *,
    problem: Callable[[Any], str | None] = lambda _: None,
) -> Path | None:
    """The newest checkpoint of a run that a training can go on from; None where there is none.

    Args:
        folder: the run's folder.
        damaged: told of each file that cannot be used, by its path below the folder, and why.
        problem: says why a checkpoint, as it was read, is none of this run's; None if it is one.
    """
    for name in (LAST, PREVIOUS):
        path = folder / FOLDER / name
        if not os.path.lexists(path):
            continue
        reason = corruption(path, problem)
        if reason is None:
            return path
        damaged(f"{FOLDER}/{name}", reason)
    return None


def corruption(path: Path, problem: Callable[[Any], str | None] = lambda _: None) -> str | None:
    """What is wrong with a checkpoint file; None where all of it can be read, and ``problem`` finds none with it."""
    if not path.is_file():
        return "it is no file"
    try:
        reject_compressed(path)
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # torch writes checksums but does not look at them
        if broken:
            return f"its checksum of {broken} is wrong"
        return problem(load(path, lazily=True))
    except pickle.UnpicklingError:
        return "it holds more than tensors and plain values, which could run code"
    except UNREADABLE as error:
        return f"it is torn: {first_line(error)}"
