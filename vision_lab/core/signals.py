"""Handling of SIGINT (Ctrl-C), SIGTERM and SIGHUP: end the command, in training after the step.

Does not import torch.
"""

from __future__ import annotations

import atexit
import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""Signal sent when a terminal closes; None on Windows."""

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Set by torchrun, by Lightning, and by ``srun``, in the order in which Lightning reads them."""

NOTICE = (
    b"\ninterrupted: finishing and saving this step (or validation); "
    b"interrupt again to end immediately\n"
)


class Interrupted(BaseException):
    """Raised when the user asks the command to end.

    Not an ``Exception``, so that no handler mistakes it for a failure.
    """


class _SignalState:
    is_deferred = False
    pending: int | None = None
    process = 0
    signals: tuple[int, ...] = ()
    terminals: tuple[int, ...] = ()


_state = _SignalState()


@contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Raise ``Interrupted`` for signals received within this context."""
    if threading.current_thread() is not threading.main_thread():  # only this one may set handlers
        yield
        return
    _state.is_deferred, _state.pending, _state.process = False, None, os.getpid()
    # nohup ignores SIGHUP, so that the command survives its terminal.
    hangup = HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN
    _state.signals = (signal.SIGINT, signal.SIGTERM, *((HANGUP,) if HANGUP and hangup else ()))
    terminals = []
    for number in (1, 2):
        if os.isatty(number):
            terminals.append(number)
    _state.terminals = tuple(terminals)
    before = {number: signal.signal(number, _handle) for number in _state.signals}
    try:
        yield
    finally:
        _state.process = 0
        for number, handler in before.items():
            signal.signal(number, handler)


def handles_signals() -> bool:
    """Return whether this process is within ``signals_as_interrupt``."""
    return _state.process == os.getpid()


def defer_signals(deferred: bool) -> None:
    """Choose whether signals are deferred or raise ``Interrupted`` immediately.

    Args:
        deferred: True while the training loop polls ``signal_pending`` after each step.
    """
    _state.is_deferred = deferred
    for number in _state.signals if _state.process == os.getpid() else ():
        signal.signal(number, _handle)  # Lightning has installed its own in between


def is_rank_zero() -> bool:
    """Return whether this is the process of a run that prints messages."""
    for name in RANK_VARIABLES:
        if name in os.environ:
            return os.environ[name] == "0"
    return True


def signal_pending() -> bool:
    """Return whether a deferred signal has been received."""
    return _state.pending is not None


def ignore_signals_in_worker() -> None:
    """Ignore signals in a data loading worker: they are sent to the whole process group, and the
    parent still needs its workers to finish the current step.

    A second SIGTERM ends the worker: that is how a parent ends workers that do not exit.
    """
    for number in (signal.SIGINT, HANGUP):
        if number is not None:
            signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


@functools.cache
def end_workers_at_exit() -> None:
    """Kill the data loading workers that are left when the interpreter exits.

    Python sends them one SIGTERM, which they ignore, and would then wait for them forever.
    """
    atexit.register(end_children, daemonic_only=True)


def end_children(*, daemonic_only: bool = False) -> None:
    """Kill the data loading workers that are left at the end of the command.

    A worker may wait forever for a lock held by another worker that was killed.

    Args:
        daemonic_only: whether to kill only children that Python would end at its exit as well.
    """
    multiprocessing = sys.modules.get("multiprocessing")  # --help must not import it: it is slow
    children = multiprocessing.active_children() if multiprocessing else []
    if daemonic_only:
        children = [child for child in children if getattr(child, "daemon", False)]
    if children and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise an error for each
    for child in children:
        with suppress(ProcessLookupError):  # those of joblib have no method for this
            os.kill(child.pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def _handle(number: int, _: FrameType | None) -> None:
    if number == HANGUP:
        _leave_terminals()
    waiting = _state.pending is not None
    _state.pending = number
    if not _state.is_deferred or waiting:
        raise Interrupted(signal.Signals(number).name)
    if is_rank_zero():
        with suppress(OSError):
            os.write(sys.stderr.fileno(), NOTICE)  # print is not reentrant


def _leave_terminals() -> None:
    """Redirect output to /dev/null: writing to a closed terminal is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for terminal in _state.terminals:
        os.dup2(nowhere, terminal)
    os.close(nowhere)
