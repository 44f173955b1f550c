"""Several processes for one run: each job of a sweep starts its own, and leaves nothing of them to the next."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import read_write
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from vision_lab.command_line import flags_of_a_job
from vision_lab.files import write
from vision_lab.types import UserError

VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""By which Lightning tells its processes what they are; the next job would take itself for one of them."""

PATIENCE = 10.0
"""Seconds that a further process has to end after the first."""

REPORT = "process-{}.error"
"""Where a further process says with what it has failed: its first one only sees that it is gone."""


@contextmanager
def reporting(trainer: pl.Trainer) -> Iterator[None]:
    """Let the first process say what is wrong in this one."""
    try:
        yield
    except Exception as error:
        known = isinstance(error, UserError)
        report = {"known": known, "text": str(error) or type(error).__name__}
        write(Path(trainer.default_root_dir) / REPORT.format(trainer.global_rank), json.dumps(report))
        if known:
            sys.exit(1)
        raise


def reported(folder: Path) -> Exception | None:
    """With what a further process has failed; its report is taken away."""
    found = None
    for file in sorted(folder.glob(REPORT.format("*"))):
        report = json.loads(file.read_text(encoding="utf-8"))
        found = found or (UserError if report["known"] else RuntimeError)(f"{file.stem}: {report['text']}")
        file.unlink()
    return found


def _wait_for(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


@contextmanager
def of_this_job(trainer: pl.Trainer) -> Iterator[None]:
    """Let the processes that a trainer starts do this job of a sweep alone, and end with it.

    Lightning starts them with this command's own words. With ``-m`` among these each would begin the whole sweep again
    (https://github.com/Lightning-AI/pytorch-lightning/issues/11300).
    """
    launcher = trainer.strategy.launcher
    if trainer.world_size == 1 or not isinstance(launcher, _SubprocessScriptLauncher):
        yield
        return
    words, variables = sys.argv[:], {name: os.environ.get(name) for name in VARIABLES}
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        job: Any = HydraConfig.instance().cfg  # what Lightning reads to start them
        sys.argv[1:] = [*flags_of_a_job(words[1:]), *job.hydra.overrides.task]
        with read_write(job.hydra):
            job.hydra.run.dir = str(Path(job.hydra.runtime.output_dir).absolute())
    try:
        yield
    except BaseException:
        launcher.kill(signal.SIGTERM)  # they may wait for this one for ever
        raise
    finally:
        sys.argv[:] = words
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for process in launcher.procs:
            _wait_for(process)
        launcher.procs.clear()  # Lightning watches them, and kills this process when one of them has failed
        reported(Path(trainer.default_root_dir))
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
