"""Files that are written whole or not at all, and what is said where that cannot be done. No torch here."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from vision_lab.types import ConfigurationError, UserError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, whatever happens meanwhile."""
    replace(path, lambda file: file.write(content.encode() if isinstance(content, str) else content))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file, with a column for each key of any row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write(path, text.getvalue())


def replace(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Put a new file in the place of ``path``: on the disk as a whole before it takes the name.

    Args:
        path: the file.
        fill: writes what it shall hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as file:  # x: never through a link that lies there
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def refuse_link(folder: Path) -> None:
    """Refuse to write into a folder that is a link, and leads who knows where.

    Raises:
        ConfigurationError: where it is one.
    """
    if folder.is_symlink():
        raise ConfigurationError(f"{shown(folder)} is a link: remove it, for a folder to be made in its place")


def trouble(error: BaseException | None, folder: Path) -> UserError | None:
    """What a user can do about an error of the file system, be it the cause of another one; None for any other."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return UserError(
                f"{folder} cannot be written: {error.strerror}. What was written before is whole. "
                "Make room, then repeat the command."
            )
        if isinstance(error, OSError) and error.errno in FORBIDDEN and error.filename is not None:
            own = Path(error.filename).absolute().is_relative_to(folder.absolute())
            cure = (
                "Type hydra.run.dir=<a folder that can be written> (in a sweep hydra.sweep.dir), or c" if own else "C"
            )
            return UserError(f"{error.filename}: {error.strerror}. {cure}hange the permissions.")
        error = error.__cause__ or error.__context__
    return None


def shown(path: Path) -> str:
    """A path as a person would type it from here."""
    return os.path.relpath(path) if path.absolute().is_relative_to(Path.cwd()) else str(path)
