"""Atomic file writes that never follow symbolic links.

A run folder may come from an untrusted source and contain links to any file. Each path below the
folder is therefore opened component by component without following links. The folder itself was
typed by the user and may be a link. Does not import torch.
"""

from __future__ import annotations

import csv
import errno
import io
import json
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
"""Maximum length of a file name on common file systems."""

_DIRECTORY_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_HAS_DIR_FD = os.open in os.supports_dir_fd


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Replace ``~`` at the start of a path by the home folder.

    Raises:
        ConfigurationError: if there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        user = os.fspath(path).partition("/")[0]
        raise ConfigurationError(
            f"{path}: {user} is no user with a home folder: type ./{path} for "
            "a folder of this name, or another path"
        ) from error


def write_file(
    folder: Path,
    name: str,
    content: str | bytes,
) -> None:
    """Write a file atomically.

    Args:
        folder: an existing folder.
        name: path of the file relative to ``folder``; missing folders are created.
        content: content of the file.

    Raises:
        ConfigurationError: if a component of ``name`` is a symbolic link.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    replace_file(folder, name, lambda file: file.write(data))


def write_json(
    folder: Path,
    name: str,
    content: Any,
    *,
    indent: int | None = 2,
) -> None:
    """Write a JSON file atomically.

    Args:
        folder: an existing folder.
        name: path of the file relative to ``folder``; missing folders are created.
        content: plain values.
        indent: spaces of each level; None for a single line.
    """
    write_file(folder, name, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


def write_csv(
    folder: Path,
    name: str,
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Write a CSV file atomically, with one column for each key of any row.

    Args:
        folder: an existing folder.
        name: path of the file relative to ``folder``; missing folders are created.
        rows: values by column; columns missing from a row are left empty.
    """
    text = io.StringIO()
    columns: dict[str, None] = {}  # without duplicates, in order
    for row in rows:
        columns.update(dict.fromkeys(row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(folder, name, text.getvalue())


def replace_file(
    folder: Path, name: str, fill: Callable[[IO[bytes]], object], *, keep_as: str | None = None
) -> None:
    """Replace a file atomically: the new one is complete on disk before it takes the name.

    Args:
        folder: an existing folder.
        name: path of the file relative to ``folder``; missing folders are created.
        fill: function that writes the new content to an open file.
        keep_as: new name of the old file, in the same folder; None deletes it.

    Raises:
        ConfigurationError: if a component of ``name`` is a symbolic link.
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
                os.fsync(file.fileno())  # before the new file replaces the old one
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


NOT_A_FILE = "it is a pipe, a device or a folder, not a file"


def open_file(path: Path | str) -> IO[bytes]:
    """Open a regular file for reading.

    Reading from a pipe or a device may block forever.

    Raises:
        OSError: if ``path`` is not a regular file, or cannot be opened.
    """
    non_blocking = getattr(os, "O_NONBLOCK", 0)  # opening a pipe would wait for its writer
    descriptor = os.open(path, os.O_RDONLY | non_blocking)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, NOT_A_FILE)
    try:
        os.read(descriptor, 1)  # some files in /proc block like a pipe
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BlockingIOError:
        os.close(descriptor)
        raise OSError(errno.EINVAL, NOT_A_FILE) from None
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path | str, *, max_bytes: int | None = None) -> bytes:
    """Read a regular file.

    Args:
        path: path of the file.
        max_bytes: maximum size of the file; None for no limit.

    Raises:
        OSError: if it is not a regular file, or cannot be read.
        ValueError: if it exceeds the limit.
    """
    with open_file(path) as file:
        content = file.read(-1 if max_bytes is None else max_bytes + 1)
    if max_bytes is not None and len(content) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    return content


def reject_compressed(path: Path) -> None:
    """Reject a checkpoint that is a compressed archive; ``torch.save`` never compresses.

    Raises:
        ValueError: if the members of the archive are larger than the archive.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                raise ValueError("it is compressed, but torch.save does not compress")


def delete_file(folder: Path, name: str) -> None:
    """Delete a file if it exists; a symbolic link is deleted itself.

    Args:
        folder: an existing folder.
        name: path of the file relative to ``folder``.

    Raises:
        ConfigurationError: if a folder in ``name`` is a symbolic link.
    """
    *folders, last = _components(name)
    with (
        suppress(FileNotFoundError),
        _open_directory(folder, folders, create=False) as (prefix, directory),
    ):
        os.unlink(prefix + last, dir_fd=directory)


def rename_file(
    folder: Path,
    name: str,
    new: str,
) -> None:
    """Rename a file within its folder.

    Args:
        folder: an existing folder.
        name: path of the file relative to ``folder``.
        new: new file name, without a folder.

    Raises:
        ConfigurationError: if a folder in ``name`` is a symbolic link.
    """
    *folders, last = _components(name)
    with _open_directory(folder, folders, create=False) as (prefix, directory):
        os.replace(prefix + last, prefix + new, src_dir_fd=directory, dst_dir_fd=directory)


def reject_link(path: Path) -> None:
    """Reject an output folder that is a symbolic link.

    Raises:
        ConfigurationError: if it is one.
    """
    if path.is_symlink():
        raise ConfigurationError(_link_text(path))


def reject_links(folder: Path) -> None:
    """Reject a run folder that contains symbolic links, pipes or devices.

    Libraries would write through links, and wait forever for pipes.

    Raises:
        ConfigurationError: if there are any; the message names the first ones.
    """
    special = []
    for parent, folders, files in os.walk(folder):
        paths = [Path(parent, name) for name in (*folders, *files)]
        for path in paths:
            if _is_special(path):
                special.append(path)
    if special:
        lines = "\n".join(f"  {format_path(path)}" for path in sorted(special)[:5])
        more = f"\n  and {len(special) - 5} more" if len(special) > 5 else ""
        raise ConfigurationError(
            f"{format_path(folder)} contains links, pipes or devices; writing to them would change "
            f"files outside the folder:\n{lines}{more}\nRemove them, or replace them by copies."
        )


def _is_special(path: Path) -> bool:
    """Return whether a path is neither a regular file nor a folder."""
    mode = path.lstat().st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def file_exists(path: Path) -> bool:
    """Return whether a file exists; False for an invalid name."""
    try:
        return path.is_file()
    except OSError:  # the name is too long
        return False


def format_path(path: Path) -> str:
    """Format a path relative to the working directory if it lies in it."""
    if path.absolute().is_relative_to(Path.cwd()):
        return os.path.relpath(path)
    return str(path)


def _components(name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name).parts
    if not parts or any(part in ("..", "/") for part in parts):
        raise ValueError(f"{name!r} is not a relative path")
    return parts


@contextmanager
def _open_directory(
    folder: Path, names: Sequence[str], *, create: bool
) -> Iterator[tuple[str, int | None]]:
    """Open a folder below another one without following symbolic links.

    Yields:
        A prefix for file names in the folder, and the directory descriptor they are relative to.
    """
    if not _HAS_DIR_FD:  # Windows: check each component instead
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


def _enter(
    directory: int,
    name: str,
    path: Path,
    *,
    create: bool,
) -> int:
    """Open a subfolder of an open folder and close the latter; ``path`` is used in errors only."""
    if create:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=directory)
    try:
        inner = os.open(name, _DIRECTORY_FLAGS | _NOFOLLOW, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            message = f"{format_path(path)} is not a folder: remove it"
            if path.is_symlink():
                message = _link_text(path)
            raise ConfigurationError(message) from None
        raise
    os.close(directory)
    return inner


def _part_name(name: str) -> str:
    """Return the temporary name of a file that is being written."""
    part = f"{name}.part"
    if len(os.fsencode(part)) <= MAX_NAME_BYTES:
        return part
    return f"{blake2b(os.fsencode(name), digest_size=8).hexdigest()}.part"


def _link_text(path: Path) -> str:
    return (
        f"{format_path(path)} is a symbolic link: remove it; a folder will be created in its place"
    )
