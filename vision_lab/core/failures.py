"""Readable messages for errors of the operating system, torch and DataLoader workers.

Does not import torch.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.errors import ConfigurationError, UserError
from vision_lab.core.files import format_path
from vision_lab.core.text import first_line

DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

PERMISSION_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS}

IN_THE_WAY_ERRNOS = {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ELOOP}
"""A folder in place of a file, a file in place of a folder, or a broken symbolic link."""

COMPILER_MODULES = ("torch._dynamo", "torch._inductor")
"""Modules of torch whose exceptions are those of ``torch.compile``."""

BATCH_OF_ONE = "Expected more than 1 value per channel when training"
"""torch's message when batch norm receives a single value per channel."""

OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|\w+ out of memory|std::bad_alloc"
)
"""torch's messages for a CPU and for GPUs."""

LOST_WORKER = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (exited unexpectedly|is killed by signal: \w+)"
)


def explain_failure(error: BaseException | None, folder: Path) -> UserError | None:
    """Convert an error, or the error that caused it, to a message that the user can act on.

    Args:
        error: the error that was raised.
        folder: output folder of the command.

    Returns:
        The message as an error; None for an error that should be shown with its traceback.
    """
    while error is not None:
        explained = _explain(error, folder)
        if explained is not None:
            return explained
        error = error.__cause__ or error.__context__
    return None


def _explain(error: BaseException, folder: Path) -> UserError | None:
    if isinstance(error, UserError):
        return error
    if isinstance(error, ArgumentError):
        return ConfigurationError(str(error))
    if isinstance(error, OSError):
        return _explain_os_error(error, folder)
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
        return UserError(
            f"out of memory ({first_line(error)}): type a smaller data.batch_size= or "
            "data.spec.image_size=, or a smaller model="
        )
    if type(error).__module__.startswith(COMPILER_MODULES):
        return UserError(
            f"torch.compile cannot compile the network here ({first_line(error)}): type "
            "trainer.compile=false, or install what is missing"
        )
    if isinstance(error, RuntimeError):
        return _explain_lost_worker(error)
    if isinstance(error, ValueError) and BATCH_OF_ONE in str(error):
        return UserError(
            "batch norm needs more than one value per channel, and a batch of one image (such as "
            "the last one of an epoch) was reduced to a single pixel: type another "
            "data.batch_size=, or a larger data.spec.image_size="
        )
    return None


def _explain_os_error(error: OSError, folder: Path) -> UserError | None:
    if error.errno in DISK_FULL_ERRNOS:
        return UserError(
            f"{folder} cannot be written: {error.strerror}. The files already written are intact. "
            "Free some space, then repeat the command."
        )
    if error.errno == errno.ENAMETOOLONG:
        return UserError(f"{str(error.filename)[:80]}...: {error.strerror}. Type a shorter name.")
    if error.errno in IN_THE_WAY_ERRNOS and error.filename is not None:
        return _explain_obstacle(error, folder)
    if error.errno in PERMISSION_ERRNOS and error.filename is not None:
        advice = "Change the permissions."
        if Path(error.filename).absolute().is_relative_to(folder.absolute()):
            advice = (
                "Type hydra.run.dir=<a writable folder> (in a sweep hydra.sweep.dir), "
                "or change the permissions."
            )
        return UserError(f"{error.filename}: {error.strerror}. {advice}")
    if isinstance(error, FileNotFoundError) and not folder.exists():
        return UserError(
            f"{format_path(folder)} no longer exists: it was deleted or renamed while the command "
            "was writing to it. Repeat the command: it starts over, or resumes if you restore the "
            "folder first."
        )
    return None


def _explain_obstacle(error: OSError, folder: Path) -> UserError:
    path = Path(os.fsdecode(error.filename2 or error.filename))
    is_relative = path.name == str(path)  # files in the run folder are opened relative to it
    if is_relative or path.absolute().is_relative_to(folder.absolute()):
        return UserError(
            f"{path.name} in {format_path(folder)}: {error.strerror}. Move it away, then repeat "
            "the command."
        )
    return UserError(
        f"{path}: {error.strerror}. Type another path, or remove the file or folder in the way."
    )


def _explain_lost_worker(error: RuntimeError) -> UserError | None:
    match = LOST_WORKER.search(str(error))
    if match is None:
        return None
    return UserError(
        f"DataLoader worker {match[1]} died ({match[2]}), most likely because memory ran out. The "
        "files already written are intact: repeat the command, with data.num_workers=0 if it "
        "happens again."
    )
