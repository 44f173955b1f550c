"""Claims of jobs: files that a process locks while it works on them.

The operating system releases a lock when its process dies.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

CLAIMS_FOLDER = ".claims"


def acquire_claim(folder: Path, name: str) -> BaseFileLock | None:
    """Claim a job for this process.

    Args:
        folder: the folder of the sweep.
        name: the name of the job.

    Returns:
        The lock, to be released afterwards; None if another process works on the job.
    """
    claims = folder / CLAIMS_FOLDER
    claims.mkdir(parents=True, exist_ok=True)
    lock = FileLock(claims / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def remove_claims(folder: Path) -> None:
    """Remove the files of claims that no process holds.

    Args:
        folder: the folder of the sweep, whose jobs have all ended.
    """
    claims = folder / CLAIMS_FOLDER
    for file in claims.glob("*.lock"):
        lock = acquire_claim(folder, file.stem)
        if lock is not None:
            file.unlink(missing_ok=True)
            lock.release()
    with suppress(OSError):  # claims of other processes, or no folder
        claims.rmdir()
