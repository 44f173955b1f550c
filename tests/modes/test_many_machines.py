"""Processes that torchrun or SLURM have started, on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, ForkedCommand, fork_command
from tests.slurm.stand_in import install
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


KILL = ("+callbacks.kill._target_=tests.kill_callback.Kill",)
"""Ends rank 0 by SIGKILL in its second epoch, if the variables are those of ``KILLED``."""

KILLED = {"KILL": "step:4", "DEATH": "SIGKILL", "RUN": "1"}


def start_torchrun(folder: Path, *words: str, **variables: str) -> list[subprocess.Popen[str]]:
    """Start ``torchrun`` on two machines, which are two addresses of this one."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    address = ["--master-addr=127.0.0.1", f"--master-port={20000 + os.getpid() % 10000}"]
    command = ["-m", "vision_lab", *words]
    nodes = []
    for rank in (0, 1):
        own = variables if rank == 0 else {}
        node = subprocess.Popen(
            [
                *torchrun,
                f"--node-rank={rank}",
                f"--local-addr=127.0.0.{rank + 1}",
                *address,
                *command,
            ],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        nodes.append(node)
    return nodes


@pytest.mark.slow
@pytest.mark.exhaustive
def test_torchrun_on_two_machines(tmp_path: Path, two_processes: bytes):
    """Killed and repeated, the same numbers as of two processes on one machine."""
    words = (*WORDS, *KILL, "trainer=ddp_cpu", "trainer.devices=8", "name=x")
    nodes = start_torchrun(tmp_path, *words, **KILLED)
    outputs = [node.communicate(timeout=120) for node in nodes]
    assert all(node.returncode for node in nodes), outputs
    assert Run(tmp_path / "outputs/x").state == "running"
    nodes = start_torchrun(tmp_path, *words)
    outputs = [node.communicate(timeout=120) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert "resuming     from step 3 (epoch 2, after 0 batches)" in outputs[0][0]
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


def run_srun(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in two tasks by the stand-in of SLURM."""
    return subprocess.run(
        [f"{folder}/bin/srun", "--ntasks=2", sys.executable, "-m", "vision_lab", *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_srun_with_two_tasks(tmp_path: Path, two_processes: bytes):
    """Killed and repeated, the same numbers as of two processes that Lightning starts."""
    variables = {**install(tmp_path / "bin"), "MASTER_PORT": str(20000 + (os.getpid() + 1) % 10000)}
    words = (*WORDS, *KILL, "trainer=ddp_cpu", "name=x")
    done = run_srun(tmp_path, *words, **variables, **KILLED)
    assert done.returncode != 0
    assert Run(tmp_path / "outputs/x").state == "running"
    done = run_srun(tmp_path, *words, **variables)
    assert done.returncode == 0, done.stderr
    assert "resuming     from step 3 (epoch 2, after 0 batches)" in done.stdout
    assert done.stdout.count("written to") == 1
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
