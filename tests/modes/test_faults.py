"""Loss of a data loading worker, the second of two processes, or the run folder during training.

experiments/crash shows that repeating the command is then bit-exact.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import ForkedCommand, fork_command
from vision_lab.run_folders.folder import Run

WORDS = (
    "logger=none",
    "callbacks.image_logger=null",
    "data.batch_size=8",
    "data.num_workers=1",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=40",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
    "name=x",
    "callbacks.resume_checkpoint.every_n_steps=10",
    "data.holdout_fraction=0.02",
)


def start(folder: Path, *words: str) -> ForkedCommand:
    """Start a run, and return when it has saved its first checkpoint."""
    process = ForkedCommand(folder, *WORDS, *words)
    while not (folder / "outputs/x/checkpoints/last.ckpt").exists() and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()
    return process


def children_of(process: ForkedCommand, *, count: int, are_readers: bool) -> list[int]:
    """Return children of a command: data loading workers, or the second process."""
    while process.poll() is None:
        found = []
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            environment = Path(f"/proc/{child}/environ").read_bytes()
            if (b"LOCAL_RANK=1" not in environment) == are_readers:
                found.append(int(child))
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(process.communicate())


def assert_it_ended_in_words(process: ForkedCommand, folder: Path, text: str) -> None:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("error: ")
    assert text in errors
    # Python prints one of its own, seldom, if a process ends while it receives a tensor.
    tracebacks = errors.split("Traceback (most recent call last):")[1:]
    assert all("multiprocessing/resource_sharer.py" in block for block in tracebacks)
    run = Run(folder / "outputs/x")
    assert run.state == "failed"
    assert text in run.error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "are_readers", "text"),
    [
        (("trainer=cpu", "data.num_workers=2"), True, "most likely because memory ran out"),
        (
            ("trainer=ddp_cpu", "data.num_workers=0"),
            False,
            "process 1 of this run was killed (SIGKILL)",
        ),
    ],
    ids=["reader", "second process"],
)
def test_a_lost_process_is_named_and_the_command_resumes(
    tmp_path: Path, words: tuple[str, ...], are_readers: bool, text: str
):
    process = start(tmp_path, *words)
    children = children_of(process, count=2 if are_readers else 1, are_readers=are_readers)
    if are_readers:
        # Like a worker that waits for a lock of the lost one, it cannot end by itself.
        os.kill(children[-2], signal.SIGSTOP)
    os.kill(children[-1], signal.SIGKILL)
    assert_it_ended_in_words(process, tmp_path, text)
    done = fork_command(tmp_path, *WORDS, *words)
    assert done.returncode == 0, done.stderr
    assert "resuming " in done.stdout
    assert Run(tmp_path / "outputs/x").state == "finished"


@pytest.mark.slow
def test_a_worker_killed_in_the_first_of_two_processes_is_the_reported_cause(tmp_path: Path):
    """The second process only sees that the first has ended, and reports nothing."""
    process = start(tmp_path, "trainer=ddp_cpu")
    os.kill(children_of(process, count=1, are_readers=True)[0], signal.SIGKILL)
    assert_it_ended_in_words(process, tmp_path, "most likely because memory ran out")


@pytest.mark.slow
@pytest.mark.parametrize(
    "lose", [shutil.rmtree, lambda path: path.rename(path.with_name("y"))], ids=["delete", "rename"]
)
def test_a_deleted_or_renamed_folder_is_named(tmp_path: Path, lose: Callable[[Path], object]):
    process = start(tmp_path, "trainer=cpu")
    lose(tmp_path / "outputs/x")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert (
        "outputs/x no longer exists: it was deleted or renamed while the command was writing to it"
        in errors
    )
    assert "Traceback" not in errors
