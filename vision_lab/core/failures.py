"""What a user can do about errors of the system and of libraries: in words, without a traceback. No torch here."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from vision_lab.core.errors import UserError
from vision_lab.core.files import format_path
from vision_lab.core.text import first_line

DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

PERMISSION_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS}

IN_THE_WAY_ERRNOS = {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ELOOP}
"""A folder stands where a file is to be written, a file where a folder is, or a link leads nowhere."""

BATCH_OF_ONE = "Expected more than 1 value per channel when training"
"""What torch's batch norm says of a batch whose channels have one value each."""

OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|\w+ out of memory|std::bad_alloc"
)
"""What torch says of it, for a CPU and for GPUs."""

LOST_WORKER = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (exited unexpectedly|is killed by signal: \w+)"
)


def explain_failure(error: BaseException | None, folder: Path) -> UserError | None:
    """Say what a user can do about an error, which may be the cause of another one.

    Args:
        error: what was raised.
        folder: the folder of the command.

    Returns:
        What was found to say; None for an error that only its traceback explains.
    """
    while error is not None:
        explained = None
        if isinstance(error, UserError):
            explained = error
        elif isinstance(error, OSError):
            explained = _explain_os_error(error, folder)
        elif isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
            explained = UserError(
                f"the memory is used up ({first_line(error)}): type a smaller data.batch_size= or "
                "data.spec.image_size=, or a smaller model="
            )
        elif isinstance(error, RuntimeError):
            explained = _explain_lost_worker(error)
        elif isinstance(error, ValueError) and BATCH_OF_ONE in str(error):
            explained = UserError(
                "batch norm cannot learn from a batch of one image whose map is one pixel (the last batch of an epoch "
                "may be that small): type another data.batch_size=, or a larger data.spec.image_size="
            )
        if explained is not None:
            return explained
        error = error.__cause__ or error.__context__
    return None


def _explain_os_error(error: OSError, folder: Path) -> UserError | None:
    if error.errno in DISK_FULL_ERRNOS:
        return UserError(
            f"{folder} cannot be written: {error.strerror}. What was written before is intact. "
            "Make room, then repeat the command."
        )
    if error.errno == errno.ENAMETOOLONG:
        return UserError(f"{str(error.filename)[:80]}...: {error.strerror}. Type a shorter one.")
    if error.errno in IN_THE_WAY_ERRNOS and error.filename is not None:
        path = Path(os.fsdecode(error.filename2 or error.filename))
        if path.name == str(path) or path.absolute().is_relative_to(folder.absolute()):
            return UserError(
                f"{path.name} in {format_path(folder)}: {error.strerror}. Move it away, then repeat the command."
            )
        return UserError(
            f"{path}: {error.strerror}. Type another path, or change what is in its way."
        )
    if error.errno in PERMISSION_ERRNOS and error.filename is not None:
        own = Path(error.filename).absolute().is_relative_to(folder.absolute())
        cure = (
            "Type hydra.run.dir=<a folder that can be written> (in a sweep hydra.sweep.dir), or c"
            if own
            else "C"
        )
        return UserError(f"{error.filename}: {error.strerror}. {cure}hange the permissions.")
    if isinstance(error, FileNotFoundError) and not folder.exists():
        return UserError(
            f"{format_path(folder)} is gone: it was deleted or renamed while the command was writing into it. Put it "
            "back and repeat the command, which then resumes; or leave it away, to start over."
        )
    return None


def _explain_lost_worker(error: RuntimeError) -> UserError | None:
    found = LOST_WORKER.search(str(error))
    if found is None:
        return None
    return UserError(
        f"the process {found[1]} that reads images ahead was lost ({found[2]}): most often the memory had run out. "
        "What was saved is intact: repeat the command, with data.num_workers=0 if it happens again."
    )
