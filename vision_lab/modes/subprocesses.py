"""Training with several processes: each job of a sweep starts its own and ends them."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import read_write
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from vision_lab.config.resolution import find_config_flags, job_overrides
from vision_lab.core.arguments import fits
from vision_lab.core.documents import DocumentError, read_json
from vision_lab.core.errors import UserError
from vision_lab.core.files import delete_file, write_json
from vision_lab.core.text import display_text
from vision_lab.run_folders.folder import Run

DDP_ENV_VARS = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that Lightning sets for its processes; later jobs must not inherit them."""

JOIN_TIMEOUT = 10.0
"""Seconds that the other processes may take to end after rank 0."""

POLL_INTERVAL = 0.5
"""Seconds between two checks that all processes are alive."""

ERROR_FILENAME = "process-{}.error"
"""File in which a process reports its error; rank 0 only sees that it has ended."""

LOST_PEER = re.compile("[Cc]onnection (closed|reset) by peer|remote process exited")
"""Messages of gloo and NCCL in a process when another one has ended."""


@contextmanager
def report_errors(trainer: pl.Trainer) -> Iterator[None]:
    """Report errors of this process to rank 0, which prints them.

    Args:
        trainer: the trainer of this process.
    """
    try:
        yield
    except Exception as error:
        if LOST_PEER.search(str(error)):  # the process that ended, or rank 0, reports the cause
            sys.exit(1)
        is_user_error = isinstance(error, UserError)
        report = {"is_user_error": is_user_error, "message": str(error) or type(error).__name__}
        file = ERROR_FILENAME.format(trainer.global_rank)
        write_json(Path(trainer.default_root_dir), file, report)
        if is_user_error:
            sys.exit(1)
        raise


def collect_errors(folder: Path) -> Exception | None:
    """Read and delete the errors that processes have reported.

    Args:
        folder: the run folder.

    Returns:
        The first error, or None if there is none.
    """
    first: Exception | None = None
    for file in sorted(folder.glob(ERROR_FILENAME.format("*"))):
        with suppress(DocumentError):  # truncated, or not written by us
            report = read_json(file)
            is_valid = fits(report, dict[str, Any])
            if is_valid and report.keys() == {"is_user_error", "message"} and first is None:
                error_class = UserError if report["is_user_error"] else RuntimeError
                first = error_class(f"{file.stem}: {report['message']}")
        delete_file(folder, file.name)
    return first


class Watch(threading.Thread):
    """Watches the other processes of a run, so that their loss is reported as an error.

    When a process has ended, Lightning kills this one as well, without any message. On CPUs the
    next collective operation fails by itself; on GPUs it may block forever, so this process is
    ended after ``JOIN_TIMEOUT``.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(name="process-watch", daemon=True)
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.lost: UserError | None = None
        self.has_ended = threading.Event()

    def take_over(self, processes: list[subprocess.Popen[bytes]]) -> None:
        """Watch processes in place of Lightning, and clear its list of them."""
        self.processes += processes
        processes.clear()
        if self.processes and not self.is_alive():
            self.start()

    def run(self) -> None:
        while not self.has_ended.wait(POLL_INTERVAL):
            if self._find_lost() and not self.has_ended.wait(JOIN_TIMEOUT):
                self._exit()

    def find_cause(self) -> Exception | None:
        """Return the error of another process that has made this one fail, if there is one."""
        deadline = time.monotonic() + POLL_INTERVAL * 4
        while self.processes and not self._find_lost() and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL / 5)
        return collect_errors(self.folder) or self.lost

    def terminate(self) -> None:
        """Terminate the processes, which may wait for this one forever."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    def join_processes(self) -> None:
        """Stop watching, and wait until the processes have ended."""
        self.has_ended.set()
        for process in self.processes:
            _join(process)
        self.processes.clear()

    def _find_lost(self) -> bool:
        for rank, process in enumerate(self.processes, start=1):
            code = process.poll()
            if code and self.lost is None:
                self.lost = UserError(_lost_message(rank, code))
        return self.lost is not None

    def _exit(self) -> None:
        """End this process, whose main thread waits for one that has ended."""
        error = collect_errors(self.folder) or self.lost
        assert error is not None
        with suppress(OSError, UserError):
            Run(self.folder).fail(error)
        print(f"error: {display_text(error)}", file=sys.stderr, flush=True)
        for process in self.processes:
            process.kill()
        os._exit(1)


def _lost_message(rank: int, code: int) -> str:
    reason = f"ended with exit code {code}"
    if code < 0:
        reason = f"was killed ({signal.Signals(-code).name})"
    return (
        f"process {rank} of this run {reason}; training cannot continue without it. The files "
        "already written are intact: repeat the command to resume."
    )


def _join(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(JOIN_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()


def _watch_launched(launcher: _SubprocessScriptLauncher, watch: Watch) -> None:
    """Make a watch take over the processes of a launcher as soon as they are started."""
    launch = launcher.launch

    def launch_watched(
        function: Callable[..., Any],
        *arguments: Any,
        **options: Any,
    ) -> Any:
        def watched(*inner: Any, **more: Any) -> Any:
            watch.take_over(launcher.procs)
            return function(*inner, **more)

        return launch(watched, *arguments, **options)

    launcher.launch = launch_watched  # type: ignore[method-assign]  # of this one launcher


@contextmanager
def subprocesses_for_job(trainer: pl.Trainer) -> Iterator[Watch]:
    """Make the processes that a trainer starts run the current job only, and end them with it.

    Lightning starts them with the words of this command; with ``-m`` among these, each process
    would start the whole sweep (https://github.com/Lightning-AI/pytorch-lightning/issues/11300).

    Args:
        trainer: the trainer, before it starts its processes.

    Yields:
        The watch over the processes.
    """
    launcher = trainer.strategy.launcher
    if trainer.world_size == 1 or not isinstance(launcher, _SubprocessScriptLauncher):
        yield Watch(Path(trainer.default_root_dir))
        return
    words, variables = sys.argv[:], {name: os.environ.get(name) for name in DDP_ENV_VARS}
    program = sys.modules["__main__"]
    program_spec = program.__spec__
    # Lightning starts the module of this process, which may be the worker of a cluster.
    program.__spec__ = importlib.util.find_spec("vision_lab.__main__")
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        job: Any = HydraConfig.instance().cfg  # Lightning reads the output folder from it
        sys.argv[1:] = [*find_config_flags(job.hydra), *job_overrides(job.hydra)]
        with read_write(job.hydra):
            job.hydra.run.dir = str(Path(job.hydra.runtime.output_dir).absolute())
    watch = Watch(Path(trainer.default_root_dir))
    _watch_launched(launcher, watch)
    try:
        yield watch
    except BaseException as error:
        watch.take_over(launcher.procs)
        cause = None
        if isinstance(error, Exception) and not isinstance(error, UserError):
            cause = watch.find_cause()
        watch.terminate()
        if cause:
            raise cause from error
        raise
    finally:
        sys.argv[:] = words
        program.__spec__ = program_spec
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        watch.join_processes()
        collect_errors(Path(trainer.default_root_dir))
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
