"""Files in a folder or at an address such as ``s3://bucket/folder``, which fsspec reaches.

Reading is repeated after errors that may pass, with growing pauses. Does not import torch.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from filelock import FileLock, Timeout

from vision_lab.core.errors import DataError
from vision_lab.core.files import expand_home, read_bytes, write_file
from vision_lab.core.text import first_line

PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "hf": "huggingface_hub",
    "http": "aiohttp",
    "https": "aiohttp",
}
"""The package that fsspec requires for each protocol. All others are refused: some run programs."""

LOCK_FILENAME = ".packing.lock"
"""File that is locked while shards are written, and deleted then."""

MAX_ATTEMPTS = 5
"""Number of times that a file is read before an error is final."""

INITIAL_BACKOFF_SECONDS = 0.5
"""Pause before the second attempt; each further one is twice as long."""

TIMEOUT_SECONDS = 30
"""Time without an answer of a server for S3 or HTTP after which an attempt has failed."""

BLOCK_BYTES = 8_000_000
"""Size of a request: what is lost when a connection is cut."""

CREDENTIAL_ERRORS = ("NoCredentialsError", "PartialCredentialsError", "PermissionError")
"""Names of the errors of all file systems for which repeating does not help."""

T = TypeVar("T")


class MissingFolderError(DataError):
    """A folder or address that does not exist."""


class FileInfo(NamedTuple):
    """What a listing says of a file.

    Attributes:
        size: its size in bytes.
        version: changes when the file does: the time of its last change, or the server's tag.
    """

    size: int
    version: str


class Storage:
    """The files of a folder, or below an address.

    Args:
        address: a folder, or an address with one of the protocols in ``PACKAGES``.

    Raises:
        DataError: if the protocol is unknown, or its package is not installed.
    """

    def __init__(self, address: str) -> None:
        protocol, separator, path = address.partition("://")
        if not address or (separator and not path.strip("/")):
            raise DataError(
                f"the address {address!r} is empty: type a folder, or an address such as "
                "s3://bucket/folder"
            )
        self.address = address.rstrip("/") or address
        self.folder: Path | None = None
        """The folder; None for an address."""
        if not separator:
            self.folder = expand_home(self.address)
        elif protocol not in PACKAGES:
            raise DataError(
                f"{address}: the protocol {protocol} is not supported: type a folder, or an "
                f"address that begins with {', '.join(f'{name}://' for name in PACKAGES)}"
            )
        self.protocol = protocol if separator else "file"
        self._file_systems: dict[int, Any] = {}
        """The file system by process: connections do not survive a fork."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_file_systems": {}}

    def __str__(self) -> str:
        return self.address

    def locate(self, name: str) -> str:
        """Return the address of a file, for messages."""
        return f"{self.address}/{name}"

    def read(self, name: str, *, max_bytes: int) -> bytes:
        """Read a file.

        Args:
            name: name of the file.
            max_bytes: maximum size of the file.

        Raises:
            FileNotFoundError: if there is no such file.
            DataError: if it is too large, or cannot be read.
        """
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(self.locate(name))
        if size > max_bytes:
            raise DataError(f"{self.locate(name)} has {size:,} bytes, more than {max_bytes:,}")
        if self.folder is not None:
            try:
                with self._explain_errors(name):
                    return read_bytes(self.folder / name, max_bytes=max_bytes)
            except ValueError as error:  # no regular file
                raise DataError(f"{self.locate(name)}: {error}") from error
        content = BytesIO()
        self.download(name, content, size=size)
        return content.getvalue()

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes; None if there is none."""
        if self.folder is not None:
            with suppress(FileNotFoundError, NotADirectoryError), self._explain_errors(name):
                return (self.folder / name).stat().st_size
            return None
        with suppress(FileNotFoundError):
            return self._info(self._retry(name, lambda system: system.info(self._path(name)))).size
        return None

    def check_folder(self) -> None:
        """Check that the folder exists; of an address this is not known.

        Raises:
            MissingFolderError: if it does not.
        """
        if self.folder is not None and not self.folder.is_dir():
            raise MissingFolderError(f"there is no folder {self.folder}: type data.root=<folder>")

    def list_files(self, suffix: str = "") -> dict[str, FileInfo]:
        """List files, without those in subfolders.

        Args:
            suffix: end of their names, in lower case.

        Returns:
            The files by name, in order.

        Raises:
            MissingFolderError: if there is no such folder.
            DataError: if it cannot be read.
        """
        files: dict[str, FileInfo] = {}
        if self.folder is not None:
            self.check_folder()
            with self._explain_errors(""):
                for path in sorted(self.folder.iterdir()):
                    if path.name.lower().endswith(suffix) and path.is_file():
                        status = path.stat()
                        files[path.name] = FileInfo(status.st_size, str(status.st_mtime_ns))
            return files
        try:
            entries = self._retry("", lambda system: system.ls(self._path(""), detail=True))
        except FileNotFoundError:
            raise MissingFolderError(
                f"there is nothing at {self.address}: type data.root=..."
            ) from None
        for entry in sorted(entries, key=lambda entry: str(entry["name"])):
            name = Path(entry["name"]).name
            if entry["type"] == "file" and name.lower().endswith(suffix):
                files[name] = self._info(self._complete(name, entry))
        return files

    def download(self, name: str, file: IO[bytes], *, size: int) -> str:
        """Copy a file of known size; after an error only the rest is read again.

        Args:
            name: name of the file.
            file: the open file to write to.
            size: size of the file in bytes.

        Returns:
            The digest of its content, see ``digest_file``.

        Raises:
            DataError: if it is missing, or cannot be read, or has another size.
        """
        digest = blake2b(digest_size=16)
        for start in range(0, size, BLOCK_BYTES):
            block = self._read_range(name, start, min(start + BLOCK_BYTES, size))
            file.write(block)
            digest.update(block)
        return digest.hexdigest()

    def upload(self, source: Path, name: str) -> None:
        """Copy a file to the storage, where it appears as a whole.

        Raises:
            DataError: if it cannot be written.
        """
        if self.folder is not None:
            part = self.folder / f".{name}.{os.getpid()}.part"
            for unfinished in self.folder.glob(f".{name}.*.part"):  # of a killed command
                unfinished.unlink(missing_ok=True)
            try:
                with self._explain_errors(name, is_written=True):
                    self.folder.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, part)
                    with part.open("rb+") as file:
                        os.fsync(file.fileno())  # only its size is checked later
                    part.replace(self.folder / name)
            finally:
                part.unlink(missing_ok=True)
            return
        self._send(name, lambda system: system.put_file(str(source), self._path(name)))

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which appears as a whole.

        Raises:
            DataError: if it cannot be written.
        """
        if self.folder is not None:
            with self._explain_errors(name, is_written=True):
                self.folder.mkdir(parents=True, exist_ok=True)
                write_file(self.folder, name, content)
        else:
            self._send(name, lambda system: system.pipe_file(self._path(name), content))

    def delete(self, name: str) -> None:
        """Delete a file, if there is one."""
        with suppress(FileNotFoundError):
            if self.folder is not None:
                with self._explain_errors(name):
                    (self.folder / name).unlink()
            else:
                self._retry(name, lambda system: system.rm_file(self._path(name)))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other commands from writing to the folder; those at an address are not kept.

        Raises:
            DataError: if another command is writing to it.
        """
        if self.folder is None:
            yield
            return
        with self._explain_errors(LOCK_FILENAME, is_written=True):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK_FILENAME, timeout=0)
            try:
                lock.acquire()
            except Timeout:
                raise DataError(
                    f"another command is writing to {self.folder}: wait for its end, or type "
                    "another folder"
                ) from None
        try:
            yield
        finally:
            (self.folder / LOCK_FILENAME).unlink(missing_ok=True)
            lock.release()

    @contextmanager
    def _explain_errors(self, name: str, *, is_written: bool = False) -> Iterator[None]:
        """Turn errors of a folder into ones that name the file.

        That a file to read is missing stays an error of its own.
        """
        try:
            yield
        except OSError as error:
            if isinstance(error, (FileNotFoundError, NotADirectoryError)) and not is_written:
                raise
            raise DataError(f"{self.locate(name)}: {error.strerror or error}") from error

    def _complete(self, name: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask for the size of a file whose listing has none, as that of a web server."""
        if entry.get("size") is not None:
            return entry
        info: Mapping[str, Any] = self._retry(name, lambda system: system.info(self._path(name)))
        return info

    def _info(self, entry: Mapping[str, Any]) -> FileInfo:
        if entry.get("size") is None:
            raise DataError(
                f"{entry.get('name')}: the server does not say how large it is: use another"
            )
        version = None
        for key in ("ETag", "etag", "blob_id", "mtime", "LastModified"):
            version = version or entry.get(key)
        return FileInfo(int(entry["size"]), str(version))

    def _path(self, name: str) -> str:
        """Return the path of a file as its file system wants it."""
        return self.locate(name) if name else self.address

    def _read_range(self, name: str, start: int, end: int) -> bytes:
        """Read the bytes from ``start`` to before ``end``."""

        def read(system: Any) -> bytes:
            block: bytes = system.cat_file(self._path(name), start=start, end=end)
            if len(block) > end - start:
                raise DataError(
                    f"{self.locate(name)}: the server does not answer range requests: use another"
                )
            if len(block) != end - start:
                raise EOFError(f"it ends after {start + len(block):,} bytes")
            return block

        if start == end:
            return b""
        try:
            return self._retry(name, read)
        except FileNotFoundError:
            raise DataError(f"{self.locate(name)} does not exist") from None

    def _send(self, name: str, action: Callable[[Any], Any]) -> None:
        """Write a file at an address."""
        try:
            self._retry(name, action)
        except FileNotFoundError as error:
            raise DataError(
                f"{self.locate(name)} cannot be written, there is no such bucket or repository: "
                "type an address in an existing one"
            ) from error

    def _retry(self, name: str, action: Callable[[Any], T]) -> T:
        """Try an action several times, unless its error is final."""
        pause = INITIAL_BACKOFF_SECONDS
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return action(self._file_system())
            except DataError:
                raise
            except Exception as error:  # each file system raises the errors of its library
                if isinstance(error, FileNotFoundError) and _is_missing(error):
                    raise
                if type(error).__name__ in CREDENTIAL_ERRORS:
                    raise DataError(self._explain_credentials(name, error)) from error
                if attempt == MAX_ATTEMPTS:
                    raise DataError(
                        f"{self.locate(name)} cannot be reached after {MAX_ATTEMPTS} attempts: "
                        f"{_describe(error)}"
                    ) from error
            time.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")

    def _explain_credentials(self, name: str, error: Exception) -> str:
        if self.protocol == "s3":
            advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        else:
            advice = f"log in as described by {PACKAGES[self.protocol]}"
        return f"{self.locate(name)}: access is denied ({first_line(error)}): {advice}"

    def _file_system(self) -> Any:
        """Return the file system of this process."""
        process = os.getpid()
        if process not in self._file_systems:
            # That of the parent process is kept: closing it in this one would wait for its thread.
            self._file_systems[process] = _open_file_system(self.protocol)
        return self._file_systems[process]


def _is_missing(error: FileNotFoundError) -> bool:
    """Return whether a file is missing; fsspec says so of all errors of a web server."""
    cause = error.__cause__
    if cause is None or not type(cause).__module__.startswith("aiohttp"):
        return True
    return getattr(cause, "status", None) in (404, 410)


def _describe(error: Exception) -> str:
    """Return the text of an error, or else of its cause, or else its kind."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return first_line(error.__cause__) or type(error.__cause__).__name__
    return first_line(error) or type(error).__name__


def _open_file_system(protocol: str) -> Any:
    """Open one of fsspec's file systems, with time limits."""
    import fsspec  # type: ignore[import-untyped]

    options: dict[str, Any] = {"skip_instance_cache": True}
    if protocol == "s3":
        limits = {"connect_timeout": TIMEOUT_SECONDS, "read_timeout": TIMEOUT_SECONDS}
        options["config_kwargs"] = {**limits, "retries": {"total_max_attempts": 1}}
    elif protocol in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=TIMEOUT_SECONDS, sock_read=TIMEOUT_SECONDS
        )
        options["client_kwargs"] = {"timeout": timeout}
    try:
        system = fsspec.filesystem(protocol, use_listings_cache=False, **options)
    except ImportError as error:
        package = PACKAGES[protocol]
        wanted = "'vision_lab[stream]'" if protocol == "s3" else package
        raise DataError(f"{protocol}:// requires {package}: type pip install {wanted}") from error
    system.retries = 1  # of s3fs, which would repeat each of our attempts five times
    return system


def digest_file(file: Path) -> str:
    """Compute the digest of a file, 32 hexadecimal digits."""
    digest = blake2b(digest_size=16)
    with file.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def is_plain_name(name: object) -> bool:
    """Return whether a value from a file is the name of a file, not a path."""
    return isinstance(name, str) and re.fullmatch(r"[\w\-][\w.\-]{0,200}", name) is not None
