"""A run's folder belongs to one process at a time. No torch here."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from filelock import BaseFileLock, FileLock, Timeout

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import reject_link
from vision_lab.runs.folder import Run, hostname

HEARTBEAT_INTERVAL = 10.0
"""Seconds between two heartbeats."""

HEARTBEAT_TIMEOUT = 6 * HEARTBEAT_INTERVAL
"""Seconds without a heartbeat after which a process on another host counts as dead."""

ORPHAN_TIMEOUT = 10.0
"""Seconds that the children of a process that was killed have to end."""

LOCK_FILENAME = ".lock"


@contextmanager
def lock_run(run: Run) -> Iterator[None]:
    """Hold a run's folder, which is made where it is missing.

    The operating system lets go of the lock when its process dies, however it dies. Where the lock of another host does
    not reach (some network file systems), the heartbeat in ``status.json`` tells.

    Raises:
        ConfigurationError: where another process holds it.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    reject_link(run.folder / LOCK_FILENAME)
    lock = FileLock(run.folder / LOCK_FILENAME)
    held = False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _wait_for_orphans(run, lock)
    try:
        if _locked_by_other_host(run):
            raise ConfigurationError(_locked_message(run))
        held = True
        with _heartbeat(run):
            yield
    finally:
        if held and not run.is_initialized and run.state in (None, "pending"):
            _cleanup(run)
        lock.release()


@contextmanager
def _heartbeat(run: Run) -> Iterator[None]:
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_INTERVAL):
            with suppress(OSError):  # a full disk is noticed by those who have something to lose
                run.write_heartbeat()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _wait_for_orphans(run: Run, lock: BaseFileLock) -> None:
    """Get a lock that a dead process' children may keep for a moment.

    Raises:
        ConfigurationError: where its holder is alive.
    """
    try:
        lock.acquire(timeout=ORPHAN_TIMEOUT if _holder_is_dead(run) else 0)
    except Timeout:
        raise ConfigurationError(_locked_message(run)) from None


def _holder_is_dead(run: Run) -> bool:
    status = run.status
    pid = status.get("pid")
    if os.name != "posix" or status.get("host") != hostname() or not isinstance(pid, int) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # somebody else's, or no process at all
        return False
    return False


def _cleanup(run: Run) -> None:
    """Take away what a claim that came to nothing has made, and nothing else."""
    for name in ("status.json", LOCK_FILENAME):
        (run.folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # it holds other things
        run.folder.rmdir()


def _locked_by_other_host(run: Run) -> bool:
    status = run.status
    if status.get("state") not in ("pending", "running") or status.get("host") == hostname():
        return False
    # The file system's own clock, for both: the hosts' clocks may differ.
    (run.folder / LOCK_FILENAME).touch()
    silent = (run.folder / LOCK_FILENAME).stat().st_mtime - (run.folder / "status.json").stat().st_mtime
    return silent < HEARTBEAT_TIMEOUT


def _locked_message(run: Run) -> str:
    status = run.status
    holder = f"process {status.get('pid', 'unknown')} on {status.get('host', 'this host')}"
    since = ""
    with suppress(ValueError, TypeError):  # no time that was written here
        beat = datetime.fromisoformat(status["heartbeat"]) if "heartbeat" in status else datetime.now(UTC)
        seconds = (datetime.now(UTC) - beat).total_seconds()
        since = f", heard of {max(seconds, 0):.0f} s ago"
    return (
        f"{run} is at work in {holder}{since}: wait for it, or type another name=. "
        f"(A process that died on another host is given up after {HEARTBEAT_TIMEOUT:.0f} s.)"
    )
