"""Several processes for one run: each job of a sweep starts its own, and leaves nothing of them to the next."""

import json
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

from vision_lab.config.overrides import single_run_flags
from vision_lab.config.resolution import words_of_job
from vision_lab.core.arguments import fits
from vision_lab.core.documents import DocumentError, read_json
from vision_lab.core.errors import UserError
from vision_lab.core.files import delete_file, write_file
from vision_lab.core.text import display_text
from vision_lab.runs.folder import Run

DDP_ENV_VARS = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""By which Lightning tells its processes what they are; the next job would take itself for one of them."""

JOIN_TIMEOUT = 10.0
"""Seconds that a further process has to end after the first."""

LOOK_EVERY_SECONDS = 0.5

ERROR_FILENAME = "process-{}.error"
"""Where a further process says with what it has failed: its first one only sees that it is gone."""


LOST_PEER = re.compile("[Cc]onnection (closed|reset) by peer|remote process exited")
"""What gloo and NCCL say in a process when another one is gone."""


@contextmanager
def report_errors(trainer: pl.Trainer) -> Iterator[None]:
    """Let the first process say what is wrong in this one."""
    try:
        yield
    except Exception as error:
        if LOST_PEER.search(str(error)):  # whoever was lost, or the first process, says why
            sys.exit(1)
        known = isinstance(error, UserError)
        report = {"known": known, "text": str(error) or type(error).__name__}
        write_file(
            Path(trainer.default_root_dir),
            ERROR_FILENAME.format(trainer.global_rank),
            json.dumps(report),
        )
        if known:
            sys.exit(1)
        raise


def collect_errors(folder: Path) -> Exception | None:
    """With what a further process has failed; its report is taken away."""
    found = None
    for file in sorted(folder.glob(ERROR_FILENAME.format("*"))):
        with suppress(DocumentError):  # torn, or somebody else's
            report = read_json(file)
            if fits(report, dict[str, Any]) and report.keys() == {"known", "text"}:
                kind = UserError if report["known"] else RuntimeError
                found = found or kind(f"{file.stem}: {report['text']}")
        delete_file(folder, file.name)
    return found


class Watch(threading.Thread):
    """Notices a further process that was lost, so that the run fails in words.

    Lightning kills this process too when it finds one gone, and says nothing to whoever looks at the run afterwards.
    On CPUs the next exchange between processes fails by itself; on GPUs it may wait for ever, and is not waited for.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(name="process-watch", daemon=True)
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.lost: UserError | None = None
        self.ended = threading.Event()

    def take(self, processes: list[subprocess.Popen[bytes]]) -> None:
        """Watch processes in the place of Lightning, whose list is empty afterwards."""
        self.processes += processes
        processes.clear()
        if self.processes and not self.is_alive():
            self.start()

    def run(self) -> None:
        while not self.ended.wait(LOOK_EVERY_SECONDS):
            if self._look() and not self.ended.wait(JOIN_TIMEOUT):
                self._give_up()

    def cause(self) -> Exception | None:
        """With what another process has failed, if that is why this one has."""
        deadline = time.monotonic() + LOOK_EVERY_SECONDS * 4
        while self.processes and not self._look() and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_SECONDS / 5)
        return collect_errors(self.folder) or self.lost

    def kill(self) -> None:
        """End the processes: they may wait for this one for ever."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Stop watching, once the processes have ended."""
        self.ended.set()
        for process in self.processes:
            _wait_for(process)
        self.processes.clear()

    def _look(self) -> bool:
        for rank, process in enumerate(self.processes, start=1):
            code = process.poll()
            if code and self.lost is None:
                self.lost = UserError(_lost_text(rank, code))
        return self.lost is not None

    def _give_up(self) -> None:
        """End this process, which waits for one that is gone and cannot be woken."""
        error = collect_errors(self.folder) or self.lost
        assert error is not None
        with suppress(OSError, UserError):
            Run(self.folder).fail(error)
        print(f"error: {display_text(error)}", file=sys.stderr, flush=True)
        for process in self.processes:
            process.kill()
        os._exit(1)


def _lost_text(rank: int, code: int) -> str:
    how = (
        f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"
    )
    return (
        f"process {rank} of this run {how}, without which it cannot train. What was saved is intact: type the same "
        "command again to go on."
    )


def _wait_for(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(JOIN_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()


def _watch_launched(launcher: _SubprocessScriptLauncher, watch: Watch) -> None:
    """Let a watch take over the processes that a launcher starts, before it does what they were started for."""
    launch = launcher.launch

    def launch_watched(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        def watched(*inner: Any, **more: Any) -> Any:
            watch.take(launcher.procs)
            return function(*inner, **more)

        return launch(watched, *arguments, **options)

    launcher.launch = launch_watched  # type: ignore[method-assign]  # of this one launcher


@contextmanager
def subprocesses_for_job(trainer: pl.Trainer) -> Iterator[Watch]:
    """Let the processes that a trainer starts do this job of a sweep alone, and end with it.

    Lightning starts them with this command's own words. With ``-m`` among these each would begin the whole sweep again
    (https://github.com/Lightning-AI/pytorch-lightning/issues/11300).
    """
    launcher = trainer.strategy.launcher
    if trainer.world_size == 1 or not isinstance(launcher, _SubprocessScriptLauncher):
        yield Watch(Path(trainer.default_root_dir))
        return
    words, variables = sys.argv[:], {name: os.environ.get(name) for name in DDP_ENV_VARS}
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        job: Any = HydraConfig.instance().cfg  # what Lightning reads to start them
        sys.argv[1:] = [*single_run_flags(words[1:]), *words_of_job(job.hydra)]
        with read_write(job.hydra):
            job.hydra.run.dir = str(Path(job.hydra.runtime.output_dir).absolute())
    watch = Watch(Path(trainer.default_root_dir))
    _watch_launched(launcher, watch)
    try:
        yield watch
    except BaseException as error:
        watch.take(launcher.procs)
        cause = (
            watch.cause()
            if isinstance(error, Exception) and not isinstance(error, UserError)
            else None
        )
        watch.kill()
        if cause:
            raise cause from error
        raise
    finally:
        sys.argv[:] = words
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        watch.end()
        collect_errors(Path(trainer.default_root_dir))
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
