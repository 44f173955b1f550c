"""Files that are written whole or not at all, and what is said where that cannot be done. No torch here."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from vision_lab.types import UserError

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
    try:
        with part.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def trouble(error: BaseException | None, folder: Path) -> UserError | None:
    """What a user can do about an error of the file system, be it the cause of another one; None for any other."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return UserError(
                f"{folder} cannot be written: {error.strerror}. What was written before is whole. "
                "Make room, then repeat the command."
            )
        if isinstance(error, OSError) and error.errno in FORBIDDEN and error.filename is not None:
            return UserError(
                f"{error.filename}: {error.strerror}. Type hydra.run.dir=<a folder that can be written> "
                "(in a sweep hydra.sweep.dir), or change the folder's permissions."
            )
        error = error.__cause__ or error.__context__
    return None


def shown(path: Path) -> str:
    """A path as a person would type it from here."""
    return os.path.relpath(path) if path.absolute().is_relative_to(Path.cwd()) else str(path)
