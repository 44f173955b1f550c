"""Checkpoint files: written atomically, loaded without running code, checked for corruption."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from torch import Tensor
from torch.utils._pytree import tree_map

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import delete_file, format_path, reject_compressed, replace_file
from vision_lab.core.text import first_line

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
FOLDER = "checkpoints"

LOAD_ERRORS = (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError)
"""Exceptions of torch and Lightning for a state with an unexpected structure."""

READ_ERRORS = (zipfile.BadZipFile, EOFError, OSError, *LOAD_ERRORS)
"""Exceptions of torch for a file that it did not write, or that is truncated."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint plugin for Lightning that writes atomically and loads safely.

    A file is complete on disk before it takes its name, and a new ``last.ckpt`` renames the old one
    to ``previous.ckpt``. Lightning's own plugin unpickles arbitrary objects.

    In the background, a copy of the state is written while training continues, one file at a time
    and in the order in which they were saved. Until a file is complete, a run resumes from the one
    before. An error is raised when the next checkpoint is saved, or at the end of training, which
    waits for the last file.

    Args:
        background: whether another thread writes. This takes memory for a copy of the state.
    """

    def __init__(self, *, background: bool = True) -> None:
        self.background = background
        self._pool: ThreadPoolExecutor | None = None
        self._unfinished: Future[None] | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        self.finish()
        folder, name = _split_path(Path(path))
        keep_as = PREVIOUS if Path(path).name == LAST else None
        if not self.background:
            self.write(checkpoint, folder, name, keep_as=keep_as)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=1)
        copied = copy_state(checkpoint)
        self._unfinished = self._pool.submit(self.write, copied, folder, name, keep_as=keep_as)

    def write(self, state: Any, folder: Path, name: str, *, keep_as: str | None) -> None:
        """Write a checkpoint; see ``save``."""
        save(state, folder, name, keep_as=keep_as)

    def finish(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            OSError: if that has failed.
        """
        unfinished, self._unfinished = self._unfinished, None
        if unfinished is not None:
            unfinished.result()

    def teardown(self) -> None:
        """Wait for the last checkpoint; Lightning calls this when training ends in any way."""
        self.finish()

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        self.finish()
        return load(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        self.finish()
        delete_file(*_split_path(Path(path)))


def copy_state(state: Any) -> Any:
    """Copy a state to the memory of the CPU, so that training may change the original.

    Tensors that share their memory, such as tied weights, share it in the copy.

    Args:
        state: tensors and plain values in dictionaries, lists and tuples.
    """
    copies: dict[Any, Tensor] = {}

    def copy(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return deepcopy(leaf)
        key = (leaf.device, leaf.data_ptr(), leaf.dtype, leaf.shape, leaf.stride())
        if key not in copies:
            copies[key] = leaf.detach().to("cpu", copy=True)
        return copies[key]

    return tree_map(copy, state)


def _split_path(path: Path) -> tuple[Path, str]:
    """Split the path of a checkpoint into the run folder and the path relative to it."""
    if path.parent.name == FOLDER:
        return path.parents[1], f"{FOLDER}/{path.name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent, path.name


def save(
    content: Any,
    folder: Path,
    name: str,
    *,
    keep_as: str | None = None,
) -> None:
    """Save an object to a file atomically, with ``torch.save``.

    Args:
        content: tensors and plain Python values.
        folder: an existing folder.
        name: path of the file, relative to ``folder``.
        keep_as: path, relative to ``folder``, to which an existing file is renamed; None to
            overwrite it.

    Raises:
        OSError: if the disk is full, or the folder is not writable.
    """

    def write(file: Any) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # raised while torch handles the OSError, such as a full disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise

    replace_file(folder, name, write, keep_as=keep_as)


def load(path: Path, *, lazily: bool = False) -> Any:
    """Load tensors and plain values to the CPU, without running code in the file.

    Args:
        path: path of the file.
        lazily: whether to leave tensors on disk (memory-mapped) until they are used.

    Raises:
        pickle.UnpicklingError: if the file contains other objects.
        ValueError: if it is compressed.
    """
    reject_compressed(path)
    return torch.load(
        path,
        map_location="cpu",
        weights_only=True,
        mmap=lazily,
    )


def load_weights(load_state_dict: Callable[[Mapping[str, Tensor]], object], path: Path) -> None:
    """Load the weights in a file into a network.

    Args:
        load_state_dict: function that loads a state dict, and raises an exception if it does not
            fit.
        path: path of the file.

    Raises:
        ConfigurationError: if the file contains no weights, weights that are not finite, or weights
            of another network.
    """
    shown = format_path(path)
    advice = "restore the run's own model.pth, or repeat the run's command with force=true"
    try:
        state = load(path)
    except pickle.UnpicklingError:
        raise ConfigurationError(
            f"{shown} contains objects other than weights, which could run code: {advice}"
        ) from None
    except READ_ERRORS as error:
        message = f"{shown} cannot be read ({first_line(error)}): {advice}"
        raise ConfigurationError(message) from error
    if not _is_state_dict(state):
        raise ConfigurationError(
            f"{shown} contains no state dict, but a {type(state).__name__}: {advice}"
        )
    try:
        load_state_dict(state)
    except (RuntimeError, KeyError, TypeError) as error:
        message = f"{shown} does not fit the network of the config: {error}"
        raise ConfigurationError(message) from error
    invalid = []
    for name, value in state.items():
        if not bool(value.isfinite().all()):
            invalid.append(name)
    if invalid:
        raise ConfigurationError(
            f"{shown} contains weights that are not finite: {', '.join(invalid[:5])}: {advice}"
        )


def _is_state_dict(state: Any) -> bool:
    if not isinstance(state, Mapping):
        return False
    return all(isinstance(key, str) and isinstance(state[key], Tensor) for key in state)


def latest_checkpoint(
    folder: Path,
    on_corrupt: Callable[[str, str], None],
    *,
    find_problem: Callable[[Any], str | None] = lambda _: None,
) -> Path | None:
    """Return the latest checkpoint from which a run can resume, or None if there is none.

    Args:
        folder: the run folder.
        on_corrupt: called for each checkpoint that cannot be used, with its path relative to
            ``folder`` and the reason.
        find_problem: returns why the content of a checkpoint cannot be used for this run, or None.
    """
    for name in (LAST, PREVIOUS):
        path = folder / FOLDER / name
        if not os.path.lexists(path):
            continue
        reason = corruption(path, find_problem)
        if reason is None:
            return path
        on_corrupt(f"{FOLDER}/{name}", reason)
    return None


def corruption(
    path: Path, find_problem: Callable[[Any], str | None] = lambda _: None
) -> str | None:
    """Return why a checkpoint file cannot be used, or None if it can.

    Args:
        path: path of the file.
        find_problem: see ``latest_checkpoint``.
    """
    if not path.is_file():
        return "it is not a file"
    try:
        reject_compressed(path)
        with zipfile.ZipFile(path) as archive:
            corrupt = archive.testzip()  # torch writes checksums but does not verify them
        if corrupt:
            return f"the checksum of {corrupt} in it is wrong"
        return find_problem(load(path, lazily=True))
    except pickle.UnpicklingError:
        return "it contains objects other than tensors and plain values, which could run code"
    except READ_ERRORS as error:
        return f"it is truncated or corrupt: {first_line(error)}"
