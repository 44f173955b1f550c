"""Locking of run folders, so that only one process at a time writes to a run.

Does not import torch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from filelock import BaseFileLock, FileLock, Timeout

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import reject_link
from vision_lab.run_folders.folder import Run, hostname

HEARTBEAT_INTERVAL_SECONDS = 10.0
"""Time between two heartbeats."""

HEARTBEAT_TIMEOUT_SECONDS = 6 * HEARTBEAT_INTERVAL_SECONDS
"""Time without a heartbeat after which a process on another host is considered dead."""

ORPHAN_TIMEOUT_SECONDS = 10.0
"""Time for the children of a killed process to end."""

LOCK_FILENAME = ".lock"


@contextmanager
def lock_run(run: Run) -> Iterator[None]:
    """Hold the lock of a run folder within this context; the folder is created if necessary.

    The operating system releases the lock when the process dies. On network file systems whose
    locks do not reach other hosts, the heartbeat in ``status.json`` protects the run.

    Args:
        run: the run.

    Raises:
        ConfigurationError: if another process holds the lock.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    reject_link(run.folder / LOCK_FILENAME)
    lock = FileLock(run.folder / LOCK_FILENAME)
    is_held = False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _wait_for_orphans(run, lock)
    try:
        if _is_locked_by_other_host(run):
            raise ConfigurationError(_describe_lock(run))
        is_held = True
        with _heartbeat(run):
            yield
    finally:
        if is_held and not run.is_initialized and run.state in (None, "pending"):
            _clean_up(run)
        lock.release()


@contextmanager
def _heartbeat(run: Run) -> Iterator[None]:
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_INTERVAL_SECONDS):
            with suppress(OSError):  # a full disk is reported by whoever writes results
                run.write_heartbeat()

    thread = threading.Thread(
        target=beat,
        name="heartbeat",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _wait_for_orphans(run: Run, lock: BaseFileLock) -> None:
    """Acquire a lock that children of a dead process may hold for a moment.

    Raises:
        ConfigurationError: if its holder is alive.
    """
    try:
        lock.acquire(timeout=ORPHAN_TIMEOUT_SECONDS if _is_holder_dead(run) else 0)
    except Timeout:
        raise ConfigurationError(_describe_lock(run)) from None


def _is_holder_dead(run: Run) -> bool:
    status = run.status
    pid = status.get("pid")
    is_local = os.name == "posix" and status.get("host") == hostname()
    if not is_local or not isinstance(pid, int) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's process, or no valid number
        return False
    return False


def _clean_up(run: Run) -> None:
    """Delete the files of a run that was never initialized, and its folder if it is empty."""
    for name in ("status.json", LOCK_FILENAME):
        (run.folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # the folder contains other files
        run.folder.rmdir()


def _is_locked_by_other_host(run: Run) -> bool:
    status = run.status
    if status.get("state") not in ("pending", "running") or status.get("host") == hostname():
        return False
    lock = run.folder / LOCK_FILENAME
    lock.touch()  # compare times of the file system: the clocks of the hosts may differ
    seconds = lock.stat().st_mtime - (run.folder / "status.json").stat().st_mtime
    return seconds < HEARTBEAT_TIMEOUT_SECONDS


def _describe_lock(run: Run) -> str:
    status = run.status
    holder = f"process {status.get('pid', 'unknown')} on {status.get('host', 'this host')}"
    last_heartbeat = ""
    with suppress(ValueError, TypeError):  # a status file of another program
        now = datetime.now(UTC)
        time = datetime.fromisoformat(status["heartbeat"]) if "heartbeat" in status else now
        seconds = max((now - time).total_seconds(), 0)
        last_heartbeat = f" (last heartbeat {seconds:.0f} s ago)"
    return (
        f"{run} is being used by {holder}{last_heartbeat}: wait until it has finished, or type "
        "another name=. A process that died on another host is ignored after "
        f"{HEARTBEAT_TIMEOUT_SECONDS:.0f} s."
    )
