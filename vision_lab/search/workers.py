"""Several processes that work on the same jobs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rich import get_console
from rich.text import Text

from vision_lab.core import console
from vision_lab.core.errors import ConfigurationError, UserError
from vision_lab.core.files import format_path
from vision_lab.core.machine import core_count, gpu_names

POLL_INTERVAL = 0.2
"""Seconds between two looks at the processes."""

DESCRIPTION_INTERVAL = 1.0
"""Seconds between two descriptions of how far they are."""

LOG_FILENAME = "worker-{}.log"


def run_in_processes(
    work: Callable[[], None],
    folder: Path,
    *,
    count: int,
    describe: Callable[[], str],
) -> None:
    """Call a function in several processes, each with its own device and share of the cores.

    What they print is in ``worker-0.log`` and so on, in the folder.

    Args:
        work: the function; it divides its jobs by locks.
        folder: the folder of the sweep.
        count: number of processes.
        describe: describes in one line how far they are, for the terminal.

    Raises:
        ConfigurationError: if processes cannot be forked, or all of them have ended by an error.
    """
    if not hasattr(os, "fork"):
        raise ConfigurationError(
            "search.workers starts processes by fork, which this system does not have: type the "
            "same command in several terminals"
        )
    context = multiprocessing.get_context(
        "fork"
    )  # torch, which does not survive it, is not imported
    logs = [folder / LOG_FILENAME.format(number) for number in range(count)]
    devices = gpu_names()
    processes = []
    for number, log in enumerate(logs):
        environment = {"OMP_NUM_THREADS": str(max(1, core_count() // count))}
        if devices:
            environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
        process = context.Process(
            target=_work,
            args=(work, log, environment),
            daemon=False,
        )
        process.start()
        processes.append(process)
    console.print_line(f"{count} processes, which print to {format_path(logs[0])} and so on")
    try:
        _follow(processes, logs, describe)
    except BaseException:
        for process in processes:
            if process.is_alive() and process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
        for process in processes:
            process.join()
        raise
    _check_ends([process.exitcode for process in processes], logs)


def _work(
    work: Callable[[], None],
    log: Path,
    environment: dict[str, str],
) -> None:
    """Work in a forked process, printing to a file."""
    from vision_lab.core import signals

    os.environ.update(environment)
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(stream, number)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    code = 0
    try:
        with signals.signals_as_interrupt():
            work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except (KeyboardInterrupt, signals.Interrupted):
        code = 130
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        signals.end_children()
    os._exit(code)


def _follow(
    processes: Sequence[multiprocessing.process.BaseProcess],
    logs: Sequence[Path],
    describe: Callable[[], str],
) -> None:
    """Print the lines of trials and jobs that the processes print, until all have ended.

    On a terminal, a line below them shows how far the processes are.
    """
    positions = [log.stat().st_size if log.is_file() else 0 for log in logs]
    terminal = get_console()
    described_at = time.monotonic()
    with terminal.status(Text(describe())) as status:
        while True:
            is_running = any(process.is_alive() for process in processes)
            _print_new_lines(logs, positions)
            if not is_running:
                return
            if terminal.is_terminal and time.monotonic() - described_at > DESCRIPTION_INTERVAL:
                status.update(Text(describe()))
                described_at = time.monotonic()
            time.sleep(POLL_INTERVAL)


def _print_new_lines(logs: Sequence[Path], positions: list[int]) -> None:
    """Print the lines of logs after the given positions, which are moved to the last line."""
    for number, log in enumerate(logs):
        if not log.is_file():
            continue
        with log.open("rb") as file:
            file.seek(positions[number])
            content = file.read()
        end = content.rfind(b"\n") + 1
        positions[number] += end
        for line in content[:end].decode(errors="replace").splitlines():
            if line.startswith(("trial ", "written to ", "error:")):
                console.print_line(line)


def _check_ends(codes: Sequence[int | None], logs: Sequence[Path]) -> None:
    """Report processes that have not ended normally.

    Raises:
        ConfigurationError: if none has.
    """
    lost = []
    for number, code in enumerate(codes):
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            lost.append(f"process {number} was killed ({name}): see {format_path(logs[number])}")
    for line in lost:
        console.print_warning(line)
    if len(lost) == len(codes):
        raise ConfigurationError("all processes were killed: repeat the command to continue")
