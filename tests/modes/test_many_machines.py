"""Processes that torchrun or SLURM have started, on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, ForkedCommand, fork_command
from vision_lab.run_folders.folder import Run

WORDS = ("debug=fast", "trainer.max_epochs=2", "logger=none", "callbacks.progress_bar=null")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The network of two processes that Lightning starts."""
    folder = tmp_path_factory.mktemp("lightning") / "runs"
    folder.mkdir()
    done = fork_command(folder, *WORDS, "trainer=ddp_cpu", "name=x")
    assert done.returncode == 0, done.stderr
    return (folder / "outputs/x/model.pth").read_bytes()


@pytest.mark.slow
def test_torchrun_on_two_machines(tmp_path: Path, two_processes: bytes):
    """Two addresses of this machine; the same numbers as of two processes on one."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    address = ["--master-addr=127.0.0.1", f"--master-port={20000 + os.getpid() % 10000}"]
    words = ["-m", "vision_lab", *WORDS, "trainer=ddp_cpu", "trainer.devices=8", "name=x"]
    nodes = [
        subprocess.Popen(
            [*torchrun, f"--node-rank={rank}", *address, *words],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    outputs = [node.communicate(timeout=120) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert "written to outputs/x" in outputs[0][0]
    assert "written to" not in outputs[1][0]
    assert (tmp_path / "outputs/x/model.pth").read_bytes() == two_processes


def start_tasks(folder: Path, *words: str) -> list[ForkedCommand]:
    """Start a command as ``srun --ntasks=2`` does."""
    job = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(20000 + (os.getpid() + 1) % 10000),
    }
    tasks = []
    for rank in ("0", "1"):
        variables = {**job, "SLURM_PROCID": rank, "SLURM_LOCALID": rank}
        tasks.append(ForkedCommand(folder, *words, **variables))
    return tasks


@pytest.mark.slow
def test_slurm_starts_two_tasks(tmp_path: Path, two_processes: bytes):
    tasks = start_tasks(tmp_path, *WORDS, "trainer=ddp_cpu", "name=x")
    outputs = [task.communicate(timeout=120) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs
    assert [out.count("written to") for out, _ in outputs] == [1, 0]
    assert Run(tmp_path / "outputs/x").state == "finished"
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    assert (tmp_path / "outputs/x/model.pth").read_bytes() == two_processes


def test_a_sweep_within_processes_of_slurm_is_refused(tmp_path: Path):
    for task in start_tasks(tmp_path, "-m", "seed=1,2", "name=x", *WORDS, "trainer=ddp_cpu"):
        _, error = task.communicate(timeout=60)
        assert task.returncode == 2
        assert "torchrun and srun start the processes of one training" in error


def test_processes_of_slurm_need_a_name(tmp_path: Path):
    tasks = start_tasks(tmp_path, *WORDS, "trainer=ddp_cpu")
    for task in tasks:
        _, error = task.communicate(timeout=60)
        assert task.returncode == 1
        assert "torchrun or SLURM has started need a common folder: type name=..." in error
