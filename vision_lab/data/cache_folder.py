"""Folders of caches: where they are, who may write them, and when they are deleted."""

from __future__ import annotations

import atexit
import errno
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, Literal

from filelock import FileLock, Timeout

from vision_lab.core import console
from vision_lab.core.errors import DataError
from vision_lab.core.files import format_path, replace_file
from vision_lab.core.machine import CACHE_VARIABLE, cache_folder
from vision_lab.core.protocols import Dataset
from vision_lab.core.text import format_si
from vision_lab.data.cache import CachedDataset, CacheError, CacheSettings, Kind, cache_key
from vision_lab.data.cache_writer import Entry, read_entries, write_entries

Place = Literal["memory", "disk"]
"""Where caches are: in memory that ends with the last run that uses it, or in a folder."""

SHARED_MEMORY = Path("/dev/shm")
"""Files in memory, on Linux."""

_OWNER = ".owner"
"""End of the name of a file that a run locks while its caches in memory have names."""

RUN_ID_VARIABLE = "VISION_LAB_RUN_ID"
"""Variable from which the processes that a run starts know that they are of this run."""


class CacheFolder:
    """A folder of caches.

    Caches in memory are files of one run. Once all its processes have opened them, their names are
    deleted, and the system frees them when the last process ends, however it ends. A run that is
    killed before leaves files behind, which the next one deletes.

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
        """End of the names of files, different for caches in memory of each run."""
        self._owner: FileLock | None = None
        """Held as long as caches in memory have names."""
        if place == "memory":
            self.folder = _memory_folder()
            self.suffix = f"-{_run_id()}"
            atexit.register(self._delete_own_files)
        else:
            self.folder = cache_folder() / "images"

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
        if self.place == "memory":
            self._claim_names()
        with self._lock(key, name):
            problem = self._find_problem(dataset, key)
            if problem is None:
                return
            if problem:
                file = format_path(self._file(key))
                console.print_warning(f"the cache {file} is made again: {problem}")
            description = f"decoding {len(dataset):,} images of {name}"
            started = time.monotonic()
            entries = read_entries(dataset, settings, kind=kind, num_workers=num_workers)
            with closing(entries), self._explain_full_disk():
                shown = console.track(entries, description, total=len(dataset))
                size = self._write(shown, settings, kind=kind, key=key)
            seconds = time.monotonic() - started
            console.print_line(
                f"cache       {len(dataset):,} images of {name}, {format_si(size)}B, in "
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
        """Delete the names of caches in memory, which all processes have opened.

        Workers that are not forked open them again by their names, so that these are kept until the
        process ends.
        """
        if self.place == "memory" and multiprocessing.get_start_method() == "fork":
            self._delete_own_files()

    def _claim_names(self) -> None:
        """Become the owner of this run's files in memory, and delete those of killed runs."""
        if self._owner is not None:
            return
        # One lock for the whole process: an earlier run of it may have failed and hold it still.
        owner = FileLock(self.folder / f"run{self.suffix}{_OWNER}", is_singleton=True)
        owner.acquire()
        self._owner = owner
        for file in self.folder.glob(f"*{_OWNER}"):
            if file.name == f"run{self.suffix}{_OWNER}":
                continue
            lock = FileLock(file)
            with suppress(Timeout), lock.acquire(timeout=0):
                _delete_files(self.folder, file.name.removeprefix("run").removesuffix(_OWNER))

    def _delete_own_files(self) -> None:
        """Delete the files if this process owns them; others may not have opened them yet."""
        if self._owner is not None:
            _delete_files(self.folder, self.suffix)
            self._owner.release(force=True)
            self._owner = None

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
                f"{CACHE_VARIABLE} to a writable folder for the cache, or type data.cache=null"
            ) from error
        if self.folder.stat().st_uid != _user_id():
            raise DataError(
                f"{format_path(self.folder)} belongs to another user: set the environment variable "
                f"{CACHE_VARIABLE} to a folder of yours for the cache, or type data.cache=null"
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
        self, entries: Iterable[Entry], settings: CacheSettings, *, kind: Kind, key: str
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
                    f"set the environment variable {CACHE_VARIABLE} to a folder with more space, "
                    "or type data.cache=null"
                )
            raise DataError(
                f"there is no space for the cache {place} ({error.strerror}): {advice}"
            ) from error


def _delete_files(folder: Path, suffix: str) -> None:
    """Delete all files of a run in memory, finished or not."""
    for file in folder.glob(f"*{suffix}.*"):
        file.unlink(missing_ok=True)


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
