"""Files below the folder of a command: written as a whole or not at all, and never through a link. No torch here.

A run's folder may come from somebody else, and a link in it may lead anywhere. So each name below the folder is opened
component by component without following links; the folder itself is the user's, and may be a link.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import IO, Any

from vision_lab.core.errors import ConfigurationError

MAX_NAME_BYTES = 255
"""Length of a file's name on the usual file systems."""

_DIRECTORY_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_HAS_DIR_FD = os.open in os.supports_dir_fd


def write_file(folder: Path, name: str, content: str | bytes) -> None:
    """Write a file below a folder, as a whole or not at all.

    Args:
        folder: the folder of the command; it exists.
        name: path of the file below it; folders on the way are created.
        content: what the file holds.

    Raises:
        ConfigurationError: if a link stands on the way.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    replace_file(folder, name, lambda file: file.write(data))


def write_csv(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file below a folder, with a column for each key of any row; see ``write_file``."""
    text = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(folder, name, text.getvalue())


def replace_file(
    folder: Path, name: str, fill: Callable[[IO[bytes]], object], *, keep_as: str | None = None
) -> None:
    """Replace a file below a folder: the new one is on the disk as a whole before it takes the name.

    Args:
        folder: the folder of the command; it exists.
        name: path of the file below it; folders on the way are created.
        fill: writes the new content.
        keep_as: name that the old file gets, in the same folder; None drops it.

    Raises:
        ConfigurationError: if a link stands on the way.
    """
    *folders, last = _components(name)
    with _open_directory(folder, folders, create=True) as (prefix, directory):
        part = prefix + _part_name(last)
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=directory)
        try:
            descriptor = os.open(
                part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o666, dir_fd=directory
            )
            with os.fdopen(descriptor, "wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())  # before the old file gives up its name
            if keep_as is not None:
                with suppress(FileNotFoundError):
                    os.replace(
                        prefix + last, prefix + keep_as, src_dir_fd=directory, dst_dir_fd=directory
                    )
            os.replace(part, prefix + last, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(part, dir_fd=directory)
            raise


NO_FILE = "it is a pipe, a device or a folder, not a file"


def open_file(path: Path | str) -> IO[bytes]:
    """Open a file for reading, if it is one: to read a pipe or a device may never end.

    Raises:
        OSError: if it is anything else, or cannot be opened.
    """
    descriptor = os.open(
        path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
    )  # a pipe would wait for its writer
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, NO_FILE)
    try:
        os.read(descriptor, 1)  # some files of /proc have nothing to read yet, like a pipe
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BlockingIOError:
        os.close(descriptor)
        raise OSError(errno.EINVAL, NO_FILE) from None
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path | str, *, max_bytes: int | None = None) -> bytes:
    """Read a file as a whole.

    Args:
        path: the file.
        max_bytes: its size at most.

    Raises:
        OSError: if it is no file, or cannot be read.
        ValueError: if it is larger.
    """
    with open_file(path) as file:
        content = file.read(-1 if max_bytes is None else max_bytes + 1)
    if max_bytes is not None and len(content) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    return content


def reject_compressed(path: Path) -> None:
    """Refuse an archive that unfolds: torch stores what it writes as it is, so it is none of torch's.

    Raises:
        ValueError: if the parts of an archive are larger than the archive.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                raise ValueError("it is compressed, which torch never does")


def delete_file(folder: Path, name: str) -> None:
    """Delete a file below a folder if it is there; of a link, the link.

    Raises:
        ConfigurationError: if a link stands on the way.
    """
    *folders, last = _components(name)
    with (
        suppress(FileNotFoundError),
        _open_directory(folder, folders, create=False) as (prefix, directory),
    ):
        os.unlink(prefix + last, dir_fd=directory)


def rename_file(folder: Path, name: str, new: str) -> None:
    """Give a file below a folder another name in the same folder.

    Raises:
        ConfigurationError: if a link stands on the way.
    """
    *folders, last = _components(name)
    with _open_directory(folder, folders, create=False) as (prefix, directory):
        os.replace(prefix + last, prefix + new, src_dir_fd=directory, dst_dir_fd=directory)


def reject_link(path: Path) -> None:
    """Refuse a folder to write into that is a link.

    Raises:
        ConfigurationError: if it is one.
    """
    if path.is_symlink():
        raise ConfigurationError(_link_text(path))


def reject_links(folder: Path) -> None:
    """Refuse a run's folder with links in it, through which libraries would write, or with pipes, which never end.

    Raises:
        ConfigurationError: naming the first ones.
    """
    links = []
    for parent, folders, files in os.walk(folder):
        links += [
            path
            for path in (Path(parent, name) for name in (*folders, *files))
            if _is_special(path)
        ]
    if links:
        listed = "\n".join(f"  {format_path(path)}" for path in sorted(links)[:5])
        more = f"\n  and {len(links) - 5} more" if len(links) > 5 else ""
        raise ConfigurationError(
            f"{format_path(folder)} holds links, pipes or devices, through which other files would be written:\n"
            f"{listed}{more}\nRemove them, or put what they lead to in their place."
        )


def _is_special(path: Path) -> bool:
    """Whether a path is anything but a file or a folder."""
    mode = path.lstat().st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def file_exists(path: Path) -> bool:
    """Return whether there is a file of that name, be the name one that no file can have."""
    try:
        return path.is_file()
    except OSError:  # too long
        return False


def format_path(path: Path) -> str:
    """Format a path as a person would type it from here."""
    return os.path.relpath(path) if path.absolute().is_relative_to(Path.cwd()) else str(path)


def _components(name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name).parts
    if not parts or any(part in ("..", "/") for part in parts):
        raise ValueError(f"{name!r} is no path below a folder")
    return parts


@contextmanager
def _open_directory(
    folder: Path, names: Sequence[str], *, create: bool
) -> Iterator[tuple[str, int | None]]:
    """Open a folder below another one without following links.

    Yields:
        What a name in it begins with, and the descriptor that this is relative to.
    """
    if not _HAS_DIR_FD:  # Windows: the same by looking at each component
        path = folder
        for name in names:
            path = path / name
            reject_link(path)
            if create:
                path.mkdir(exist_ok=True)
        yield f"{path}{os.sep}", None
        return
    directory = os.open(folder, _DIRECTORY_FLAGS)
    path = folder
    try:
        for name in names:
            path = path / name
            directory = _enter(directory, name, path, create=create)
        yield "", directory
    finally:
        os.close(directory)


def _enter(directory: int, name: str, path: Path, *, create: bool) -> int:
    """Exchange an open folder for one in it; ``path`` is for errors alone."""
    if create:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=directory)
    try:
        inner = os.open(name, _DIRECTORY_FLAGS | _NOFOLLOW, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            text = (
                _link_text(path)
                if path.is_symlink()
                else f"{format_path(path)} is no folder: remove it"
            )
            raise ConfigurationError(text) from None
        raise
    os.close(directory)
    return inner


def _part_name(name: str) -> str:
    """The name of a file while it is written."""
    part = f"{name}.part"
    if len(os.fsencode(part)) <= MAX_NAME_BYTES:
        return part
    return f"{blake2b(os.fsencode(name), digest_size=8).hexdigest()}.part"


def _link_text(path: Path) -> str:
    return f"{format_path(path)} is a link: remove it, for a folder to be created in its place"
