"""Ctrl-C, SIGTERM, and a terminal that closes (SIGHUP): they end a command, while it trains after the step it is in.

No torch here.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""What a terminal that closes sends; not on Windows."""

NOTICE = b"\ninterrupted: this step (or validation) is finished and saved first; once more ends it at once\n"


class Interrupted(BaseException):
    """The command was asked to end; not an ``Exception``, so that nothing takes it for a failure."""


class _Asked:
    patient = False
    signal: int | None = None
    process = 0
    signals: tuple[int, ...] = ()
    terminals: tuple[int, ...] = ()


_asked = _Asked()


@contextmanager
def heeded() -> Iterator[None]:
    """Turn the signals into ``Interrupted`` while inside."""
    if threading.current_thread() is not threading.main_thread():  # Python lets no other set handlers
        yield
        return
    _asked.patient, _asked.signal, _asked.process = False, None, os.getpid()
    # Under nohup a closing terminal is to be survived.
    hangup = HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN
    _asked.signals = (signal.SIGINT, signal.SIGTERM, *((HANGUP,) if HANGUP and hangup else ()))
    _asked.terminals = tuple(number for number in (1, 2) if os.isatty(number))
    before = {number: signal.signal(number, _handle) for number in _asked.signals}
    try:
        yield
    finally:
        _asked.process = 0
        for number, handler in before.items():
            signal.signal(number, handler)


def patient(waits: bool) -> None:
    """Say whether whoever works now will look at ``asked`` soon, so that it need not be torn out of its work."""
    _asked.patient = waits
    for number in _asked.signals if _asked.process == os.getpid() else ():
        signal.signal(number, _handle)  # Lightning has put its own in between


def first_process() -> bool:
    """Whether this is the one of several processes for a run that speaks."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def asked() -> bool:
    """Whether a signal is waiting to be heeded."""
    return _asked.signal is not None


def leave_to_parent() -> None:
    """In a process forked from this one: leave a signal to the whole group to the parent, which still needs the child.

    A second SIGTERM ends it: that is how a parent gets rid of a child that does not end by itself.
    """
    for number in (signal.SIGINT, HANGUP):
        if number is not None:
            signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def end_children() -> None:
    """Kill the processes that read ahead and are left when the command is done.

    One of them may wait for ever, for a lock that another one held when it was killed.
    """
    multiprocessing = sys.modules.get("multiprocessing")  # not imported by --help, which is to be fast
    children = multiprocessing.active_children() if multiprocessing else []
    if children and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch raises an error for each that is killed
    for child in children:
        child.kill()


def _handle(number: int, _: FrameType | None) -> None:
    if number == HANGUP:
        _leave_terminals()
    waiting = _asked.signal is not None
    _asked.signal = number
    if not _asked.patient or waiting:
        raise Interrupted(signal.Signals(number).name)
    if first_process():
        with suppress(OSError):
            os.write(sys.stderr.fileno(), NOTICE)  # print is not safe within whatever was interrupted


def _leave_terminals() -> None:
    """Send what is still printed nowhere: to write to a terminal that is gone is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for terminal in _asked.terminals:
        os.dup2(nowhere, terminal)
    os.close(nowhere)
