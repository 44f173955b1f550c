"""Caches of datasets: found, or decoded once and written."""

from __future__ import annotations

import atexit
import errno
import io
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from vision_lab.core import console, signals
from vision_lab.core.errors import DataError, UnreadableFileError
from vision_lab.core.files import format_path, replace_file
from vision_lab.core.protocols import Dataset
from vision_lab.data.cache import (
    COLUMNS,
    NO_LABEL,
    CachedDataset,
    CacheError,
    CacheSettings,
    Kind,
    cache_key,
    pack_end,
)
from vision_lab.data.image_io import ImageFile, InvalidImageError, to_uint8_image
from vision_lab.data.targets import check_mask_size

Place = Literal["memory", "disk"]
"""Where caches are: in memory that ends with the last run that uses it, or in a folder."""

SHARED_MEMORY = Path("/dev/shm")
"""Files in memory, on Linux."""

FOLDER_VARIABLE = "VISION_LAB_CACHE"
"""Variable with the folder of caches: a setting of the user, which no config may change."""

RUN_ID_VARIABLE = "VISION_LAB_RUN_ID"
"""Variable from which the processes that a run starts know that they are of this run."""

GIGABYTE = 10**9


class _Entry(NamedTuple):
    """What a worker has decoded."""

    path: str | None = None
    image: Tensor | None = None
    size: tuple[int, int] = (0, 0)
    """(height, width) of the original in pixels."""
    mask: Tensor | None = None
    label: int = NO_LABEL
    problem: str | None = None


class CacheFolder:
    """A folder of caches.

    Caches in memory are files without a name: once all processes of a run have opened them, their
    names are deleted, and the system frees them when the last process ends, however it ends.

    Args:
        place: "disk" for ``VISION_LAB_CACHE``, or ``vision_lab`` in the user's cache folder; or
            "memory".
        limit: maximum size of a cache in bytes.
    """

    def __init__(
        self,
        place: Place,
        *,
        limit: int,
    ) -> None:
        self.place = place
        self.limit = limit
        self.suffix = ""
        if place == "memory":
            self.folder = _memory_folder()
            self.suffix = f"-{_run_id()}"
            atexit.register(self.release)
        else:
            self.folder = _disk_folder()

    def ensure(
        self,
        dataset: Dataset,
        settings: CacheSettings,
        *,
        kind: Kind,
        name: str,
        num_workers: int,
    ) -> None:
        """Write the cache of a dataset, unless there is one.

        Args:
            dataset: the dataset.
            settings: how to resize images.
            kind: which targets to cache.
            name: name of the split, for messages.
            num_workers: number of processes that decode.

        Raises:
            DataError: if the cache exceeds the limit, or there is no space for it.
        """
        key = cache_key(dataset, settings, has_labels=kind == "labels")
        self._make_folder()
        with self._lock(key, name):
            problem = self._find_problem(dataset, key)
            if problem is None:
                return
            if problem:
                file = format_path(self._file(key))
                console.print_warning(f"the cache {file} is made again: {problem}")
            description = f"decoding {len(dataset):,} images of {name}"
            entries = track(
                read_entries(dataset, settings, kind=kind, num_workers=num_workers),
                total=len(dataset),
                description=description,
                transient=True,
            )
            started = time.monotonic()
            with self._explain_full_disk():
                size = self._write(entries, settings, kind=kind, key=key)
            seconds = time.monotonic() - started
            console.print_line(
                f"cache       {len(dataset):,} images of {name}, {size / GIGABYTE:.3g} GB, in "
                f"{seconds:.0f} s: {self._describe_file(key)}"
            )

    def open(
        self,
        dataset: Dataset,
        settings: CacheSettings,
        *,
        has_labels: bool,
    ) -> CachedDataset:
        """Open the cache of a dataset.

        Args:
            dataset: the dataset.
            settings: how its images were resized.
            has_labels: whether targets are class labels.

        Raises:
            DataError: if there is none.
        """
        key = cache_key(dataset, settings, has_labels=has_labels)
        try:
            return CachedDataset(dataset, self._file(key), key=key)
        except CacheError as error:
            raise DataError(
                f"the cache {format_path(self._file(key))} cannot be used ({error}): repeat the "
                "command"
            ) from error

    def release(self) -> None:
        """Delete the names of caches in memory, which all processes have opened."""
        if self.place == "memory":
            for file in self.folder.glob(f"*{self.suffix}.images"):
                file.unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}{self.suffix}.images"

    def _describe_file(self, key: str) -> str:
        return "in memory" if self.place == "memory" else format_path(self._file(key))

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{format_path(self.folder)}: {error.strerror}: set the environment variable "
                f"{FOLDER_VARIABLE} to a writable folder for the cache, or type data.cache=null"
            ) from error
        if self.folder.stat().st_uid != _user_id():
            raise DataError(
                f"{format_path(self.folder)} belongs to another user: set the environment variable "
                f"{FOLDER_VARIABLE} to a folder of yours for the cache, or type data.cache=null"
            )

    @contextmanager
    def _lock(self, key: str, name: str) -> Iterator[None]:
        """Hold the lock of a cache, which another command may be writing."""
        lock = FileLock(self.folder / f"{key}{self.suffix}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            console.print_line(f"cache       waiting for another command that decodes {name}")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _find_problem(self, dataset: Dataset, key: str) -> str | None:
        """Return why a cache must be written; nothing if there is no file, None if it is valid."""
        if not self._file(key).is_file():
            return ""
        try:
            CachedDataset(dataset, self._file(key), key=key)
        except CacheError as error:
            return str(error)
        return None

    def _write(
        self, entries: Iterable[_Entry], settings: CacheSettings, *, kind: Kind, key: str
    ) -> int:
        sizes = []

        def fill(file: IO[bytes]) -> None:
            sizes.append(
                write_entries(
                    file, entries, settings=settings, kind=kind, key=key, limit=self.limit
                )
            )

        replace_file(self.folder, self._file(key).name, fill)
        return sizes[0]

    @contextmanager
    def _explain_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            if self.place == "memory":
                place, advice = "in memory", "type data.cache=disk, or data.cache=null"
            else:
                place = f"in {format_path(self.folder)}"
                advice = (
                    f"set the environment variable {FOLDER_VARIABLE} to a folder with more space, "
                    "or type data.cache=null"
                )
            raise DataError(
                f"there is no space for the cache {place} ({error.strerror}): {advice}"
            ) from error


def read_entries(
    dataset: Dataset,
    settings: CacheSettings,
    *,
    kind: Kind,
    num_workers: int,
) -> Iterator[_Entry]:
    """Decode the samples of a dataset in order.

    Args:
        dataset: the dataset.
        settings: how to resize images.
        kind: which targets to read.
        num_workers: number of processes.
    """
    yield from DataLoader(
        _Reader(dataset, settings, kind),
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_keep,
        worker_init_fn=_init_worker,
    )


def write_entries(
    file: IO[bytes],
    entries: Iterable[_Entry],
    *,
    settings: CacheSettings,
    kind: Kind,
    key: str,
    limit: int,
) -> int:
    """Write a cache.

    Args:
        file: the file.
        entries: its samples, in the order of the dataset.
        settings: the settings of the cache.
        kind: which targets it contains.
        key: the key of the cache.
        limit: maximum size in bytes.

    Returns:
        The size in bytes.

    Raises:
        DataError: if the cache would be larger.
    """
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    paths: list[str | None] = []
    problems: dict[str, str] = {}
    position = 0
    for index, entry in enumerate(entries):
        paths.append(entry.path)
        if entry.problem is not None:
            problems[str(index)] = entry.problem
        rows["original_sizes"].append(entry.size)
        rows["labels"].append(entry.label)
        for name, pixels in (("image", entry.image), ("mask", entry.mask)):
            rows[f"{name}_starts"].append(position)
            rows[f"{name}_sizes"].append((0, 0) if pixels is None else tuple(pixels.shape[:2]))
            if pixels is not None:
                position += file.write(pixels.numpy().tobytes())
        if position > limit:
            raise DataError(
                f"after {index + 1:,} images the cache takes more than data.cache_limit="
                f"{limit / GIGABYTE:g} GB: type a larger one, or data.cache=null"
            )
    table = io.BytesIO()
    arrays: dict[str, Any] = {"key": key, "kind": kind, "channels": settings.channels}
    for name, values in rows.items():
        arrays[name] = np.asarray(values, dtype=np.int64)
    np.savez(table, paths=_encode(paths), problems=_encode(problems), **arrays)
    end = table.getvalue() + pack_end(position)
    file.write(end)
    return position + len(end)


class _Reader(torch.utils.data.Dataset[_Entry]):
    """Reads the samples of a cache.

    Args:
        dataset: the dataset.
        settings: how to resize images.
        kind: which targets to read.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: CacheSettings,
        kind: Kind,
    ) -> None:
        self.dataset = dataset
        self.settings = settings
        self.kind = kind

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> _Entry:
        try:
            source, target = self.dataset[index]
        except UnreadableFileError as error:
            return _Entry(error.unreadable.path, problem=error.unreadable.reason)
        path = str(source) if isinstance(source, str | Path) else None
        try:
            image = self._decode(source if path is None else path)
            size = (image.shape[-2], image.shape[-1])
            new = self.settings.cached_size(size)
            mask = None
            if self.kind == "masks" and target is not None:
                mask = _resize_mask(target, size, new)
        except InvalidImageError as error:
            return _Entry(path, problem=str(error))
        if new != size:
            image = F.resize(image, list(new), antialias=True)
        has_label = self.kind == "labels" and target is not None
        label = int(target) if has_label else NO_LABEL
        return _Entry(path, image.permute(1, 2, 0).contiguous(), size, mask, label)

    def _decode(self, source: Any) -> Tensor:
        settings = self.settings
        if isinstance(source, str):
            file = ImageFile.open(source, max_pixels=settings.max_pixels)
            return file.decode(channels=settings.channels)
        return to_uint8_image(source, channels=settings.channels, max_pixels=settings.max_pixels)


def _resize_mask(
    target: Any,
    size: tuple[int, int],
    new: tuple[int, int],
) -> Tensor:
    """Resize a mask with its image.

    Args:
        target: the mask, (H, W).
        size: (height, width) of the image.
        new: the same after resizing.

    Returns:
        (height, width) uint8.

    Raises:
        InvalidImageError: if it has another size, or other values than 0 to 255.
    """
    mask = torch.as_tensor(np.asarray(target))
    check_mask_size(tuple(mask.shape), size)
    if mask.is_floating_point() or mask.min() < 0 or mask.max() > 255:
        raise InvalidImageError("its mask contains other values than 0 to 255")
    mask = mask.to(torch.uint8)
    if new != size:
        resized = F.resize(mask[None], list(new), interpolation=InterpolationMode.NEAREST)
        mask = resized[0]
    return mask.contiguous()


def _run_id() -> str:
    """Return an identifier that only the processes of one run share."""
    for variable in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", RUN_ID_VARIABLE):
        if variable in os.environ:
            return blake2b(os.environ[variable].encode(), digest_size=6).hexdigest()
    os.environ[RUN_ID_VARIABLE] = f"{socket.gethostname()}-{os.getpid()}"
    return _run_id()


def _memory_folder() -> Path:
    """Return a folder in memory; one of temporary files where the system has none."""
    parent = SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
    return parent / f"vision_lab-{_user_id()}"


def _user_id() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _disk_folder() -> Path:
    if os.environ.get(FOLDER_VARIABLE):
        return Path(os.environ[FOLDER_VARIABLE]).expanduser() / "images"
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "vision_lab" / "images"


def _encode(content: Any) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(content).encode(), dtype=np.uint8)


def _keep(entry: Any) -> Any:
    return entry


def _init_worker(_: int) -> None:
    signals.ignore_signals_in_worker()
