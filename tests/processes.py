"""The command line in other processes, for tests that kill them or start several."""

import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch.utils.data._utils import signal_handling

from tests import kill_callback
from vision_lab.__main__ import main

ROOT = Path(__file__).parent.parent


def run_command(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m vision_lab`` in a folder, with additional environment variables."""
    return subprocess.run(
        [sys.executable, "-m", "vision_lab", *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


class ForkedCommand:
    """The command line in a forked process, which need not import torch again (5 s).

    It is a process like any other, with signals and children of its own. The second process of a
    run is started by Lightning, and imports torch.

    Args:
        folder: working directory.
        words: the command line.
        variables: additional environment variables.
    """

    def __init__(self, folder: Path, *words: str, **variables: str) -> None:
        output = Path(tempfile.mkdtemp(dir=folder.parent))
        self.files = (output / "stdout", output / "stderr")
        self.process = multiprocessing.get_context("fork").Process(
            target=_run, args=(folder, words, variables, self.files)
        )
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or the negative number of the signal; None while the process runs."""
        return self.process.exitcode

    @property
    def stdout(self) -> str:
        return self.files[0].read_text()

    @property
    def stderr(self) -> str:
        return self.files[1].read_text()

    def poll(self) -> int | None:
        return self.process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end of the process, and return what it has printed."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise TimeoutError(f"the command has not ended after {timeout} s: {self.stdout}")
        return self.stdout, self.stderr


def fork_command(folder: Path, *words: str, **variables: str) -> ForkedCommand:
    """Run the command line in a forked process, and wait for its end."""
    command = ForkedCommand(folder, *words, **variables)
    command.communicate()
    return command


def _run(
    folder: Path, words: tuple[str, ...], variables: dict[str, str], files: tuple[Path, Path]
) -> None:
    os.setsid()
    torch.set_num_threads(1)  # fixtures of modules run before that of tests which sets it
    kill_callback.reset()  # runs of earlier tests in the process that has forked do not count
    # nohup, which may have started the tests, ignores it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # torch installs its handler of lost workers once a process, and Lightning removes it after a fit
    signal_handling._SIGCHLD_handler_set = False
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.update({"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | variables)
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.argv = ["vision_lab", *words]
    # Lightning starts other processes as `python -m` with the name of this module
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("vision_lab.__main__")
    main()
