"""Images in tar files, which are read where they are. Does not import torch.

Finding the images takes a pass over the headers of the files, whose result is kept in the user's
folder of caches.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_lab.core.errors import DataError
from vision_lab.core.files import write_file
from vision_lab.core.machine import cache_folder
from vision_lab.core.text import first_line
from vision_lab.data.encoded_image import EncodedImage
from vision_lab.data.formats.image_folder import EXTENSIONS

MAX_NAME_LENGTH = 4096
"""Maximum length of the name of a file in a tar file."""

MAX_READ_BYTES = 1_000_000
"""Maximum number of bytes of headers, or of the end of a tar file, that are read at once."""


class Member(NamedTuple):
    """A file in a tar file.

    Attributes:
        name: its name; in a tar file within the tar file, after the name of that and a slash.
        start: its first byte.
        size: its number of bytes.
    """

    name: str
    start: int
    size: int


class TarImages:
    """A map-style dataset of (image file, label) in a tar file.

    Args:
        file: the tar file.
        members: the images.
        labels: the label of each.
    """

    def __init__(self, file: Path, members: Sequence[Member], labels: Sequence[int]) -> None:
        self.file = file
        self.names = [member.name for member in members]
        self.positions = np.array([member[1:] for member in members], np.int64).reshape(-1, 2)
        self.targets = labels
        self._descriptor: tuple[int, int] | None = None
        """The process that has opened the file, and its descriptor."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_descriptor": None}

    def __len__(self) -> int:
        return len(self.names)

    @property
    def config_key(self) -> tuple[str, int, list[str]]:
        """The name and size of the file, and its images, for fingerprints."""
        return self.file.name, self.file.stat().st_size, self.names

    def __getitem__(self, index: int) -> tuple[EncodedImage, int]:
        start, size = self.positions[index].tolist()
        content = os.pread(self._open(), size, start)
        if len(content) < size:
            raise DataError(f"{self.file} ends within {self.names[index]}: it has changed")
        return EncodedImage(content, f"{self.file.name}/{self.names[index]}"), self.targets[index]

    def _open(self) -> int:
        if self._descriptor is None or self._descriptor[0] != os.getpid():
            try:
                self._descriptor = (os.getpid(), os.open(self.file, os.O_RDONLY))
            except OSError as error:
                raise DataError(f"{self.file} cannot be read: {error.strerror}") from error
        return self._descriptor[1]


def list_images(file: Path) -> list[Member]:
    """List the images in a tar file, and in those within it, in order of their names.

    Raises:
        DataError: if it is not an intact tar file.
    """
    index_file = _index_file(file)
    members = _read_index(index_file)
    if members is None:
        with explain_tar_errors(str(file)), file.open("rb") as stream:
            members = sorted(_find_images(stream, 0, file.stat().st_size, ""))
        _write_index(index_file, members)
    return members


def list_tar_names(file: Path) -> list[str]:
    """List the names of the tar files within a tar file, without their suffix.

    Raises:
        DataError: if it is not an intact tar file.
    """
    with explain_tar_errors(str(file)), file.open("rb") as stream:
        members = list(read_members(stream, 0, file.stat().st_size))
    names = [Path(member.name) for member in members]
    return sorted(name.stem for name in names if name.suffix == ".tar")


@contextmanager
def explain_tar_errors(address: str) -> Iterator[None]:
    """Name the tar file in errors of reading it.

    Args:
        address: its path or address.

    Raises:
        DataError: instead of any other exception.
    """
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{address} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # tarfile raises any exception for damaged headers
        raise DataError(f"{address} is not an intact tar file: {first_line(error)}") from error


def read_members(stream: IO[bytes], start: int, size: int) -> Iterator[Member]:
    """Yield the regular files in a tar file that lies in a part of a file.

    Args:
        stream: the file.
        start: first byte of the tar file.
        size: its number of bytes.

    Raises:
        TarError: if it is not an intact tar file, or contains links or sparse files.
    """
    with tarfile.open(fileobj=_Part(stream, start, size), mode="r:") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep all of them
            if member.size < 0:  # tarfile would read the same member again and again
                raise tarfile.ReadError(f"{member.name} has the size {member.size}")
            if len(member.name) > MAX_NAME_LENGTH:
                raise tarfile.ReadError(f"a name has {len(member.name):,} characters")
            if member.islnk() or member.issym() or member.issparse():
                raise tarfile.ReadError(
                    f"{member.name} is a link or a sparse file: write it with tar "
                    "--dereference --hard-dereference and without --sparse"
                )
            if member.isreg():
                yield Member(member.name, start + member.offset_data, member.size)
        _check_end(tar)


def _check_end(tar: tarfile.TarFile) -> None:
    """Check that a tar file that was read ends with zeros.

    tarfile takes a damaged header for the end, and stops at the end of the first of two archives.
    """
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    is_first = True
    while block := tar.fileobj.read(MAX_READ_BYTES):
        if block.strip(b"\0"):
            raise tarfile.ReadError(f"it is damaged after {tar.offset:,} bytes")
        is_first = False
    if is_first:
        raise tarfile.ReadError("it ends early")


def _find_images(stream: IO[bytes], start: int, size: int, prefix: str) -> Iterator[Member]:
    """Yield the images in the tar file that lies in a part of a file, and in those within it."""
    for member in read_members(stream, start, size):
        path = Path(member.name)
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in EXTENSIONS:
            yield member._replace(name=f"{prefix}{member.name}")
        elif path.suffix == ".tar" and not prefix:
            yield from _find_images(stream, member.start, member.size, f"{path.stem}/")


class _Part(io.RawIOBase):
    """A part of an open file, of which little is read at once: tarfile trusts sizes in headers."""

    def __init__(self, stream: IO[bytes], start: int, size: int) -> None:
        self.stream = stream
        self.start = start
        self.size = size
        self.position = 0

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = base + offset
        return self.position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self.position)
        wanted = left if size < 0 else min(size, left)
        if wanted > MAX_READ_BYTES:
            raise tarfile.ReadError(f"a header has {wanted:,} bytes")
        self.stream.seek(self.start + self.position)
        content = self.stream.read(wanted)
        self.position += len(content)
        return content


def _index_file(file: Path) -> Path:
    """Return where the index of a tar file is, as long as the file does not change."""
    status = file.stat()
    text = f"{file.absolute()}:{status.st_size}:{status.st_mtime_ns}"
    name = blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return cache_folder() / "tar" / f"{name}.npz"


def _read_index(index_file: Path) -> list[Member] | None:
    try:
        with np.load(index_file, allow_pickle=False) as arrays:
            positions: NDArray[np.int64] = arrays["positions"]
            names = arrays["names"].tobytes().decode(errors="surrogateescape").split("\0")
    except Exception:  # numpy raises any exception for a damaged file
        return None
    if positions.shape != (len(names), 2):
        return None
    return [
        Member(name, *position) for name, position in zip(names, positions.tolist(), strict=True)
    ]


def _write_index(index_file: Path, members: Sequence[Member]) -> None:
    if not members:
        return
    stream = io.BytesIO()
    names = "\0".join(member.name for member in members).encode(errors="surrogateescape")
    positions = np.array([member[1:] for member in members], np.int64)
    np.savez_compressed(stream, names=np.frombuffer(names, np.uint8), positions=positions)
    with suppress(OSError):  # on a full disk it is made again next time
        index_file.parent.mkdir(parents=True, exist_ok=True)
        write_file(index_file.parent, index_file.name, stream.getvalue())
