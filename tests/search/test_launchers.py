"""Hydra's launchers: grids with a failing and a killed job, and searches; SLURM by a stand-in."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock

from tests.builders import FAST
from tests.processes import ForkedCommand, fork_command
from tests.slurm.stand_in import FIRST_JOB, install
from vision_lab.run_folders.folder import Run
from vision_lab.run_folders.lock import LOCK_FILENAME

FAILING, KILLED = 1, 2
LAUNCHERS = {
    "basic": (),
    "joblib": ("hydra.launcher.n_jobs=2",),
    "submitit_local": (),
    "submitit_slurm": (),
    "ray": (
        "+hydra.launcher.ray.init.num_cpus=2",
        "+hydra.launcher.ray.init.include_dashboard=false",
    ),
}


class Launcher(NamedTuple):
    """A launcher of Hydra, with the environment in which it is found."""

    name: str
    words: tuple[str, ...]
    variables: dict[str, str]

    def run(self, folder: Path, *words: str) -> ForkedCommand:
        return fork_command(folder, "-m", *words, *self.words, COLUMNS="150", **self.variables)


@pytest.fixture
def launcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    name = request.param
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
    if name == "submitit_slurm":
        variables |= install(tmp_path_factory.mktemp("slurm") / "bin")
    return Launcher(name, (f"hydra/launcher={name}", *LAUNCHERS[name]), variables)


def states(folder: Path) -> dict[str, str | None]:
    runs = [Run(path.parent) for path in folder.rglob("status.json")]
    return {run.folder.name: run.state for run in runs}


def wait_for_end(folder: Path) -> None:
    """Wait for jobs that a launcher no longer waits for, since one of them was lost."""
    for file in folder.rglob(LOCK_FILENAME):
        with FileLock(file, timeout=120):
            pass


def check_grid(folder: Path, launcher: Launcher, *, seeds: Sequence[int]) -> None:
    """Check that a command typed three times runs each job once, but for the one that was killed."""
    records = folder / "records"
    records.mkdir()
    callback = (
        "+callbacks.disturb={_target_:tests.kill_callback.Disturb,"
        f"killed:{KILLED},failing:{FAILING},folder:'{records}'}}"
    )
    words = (f"seed={','.join(map(str, seeds))}", *FAST, "trainer.max_epochs=2", callback, "name=x")
    ended: dict[str, int] = {}
    for _ in range(3):
        done = launcher.run(folder, *words)
        assert (records / "trainings").exists(), done.stderr
        wait_for_end(folder)
        trainings = (records / "trainings").read_text().splitlines()
        for name, state in states(folder).items():
            count = sum(line.split()[0] == name.removeprefix("seed-") for line in trainings)
            if state in ("finished", "failed"):
                assert ended.setdefault(name, count) == count
    assert done.returncode == 1, done.stderr
    expected = {f"seed-{seed}": "finished" for seed in seeds} | {f"seed-{FAILING}": "failed"}
    assert states(folder) == expected
    assert f"outputs/x: {len(seeds)} runs" in done.stdout
    assert f"seed-{FAILING} failed: this seed fails" in done.stdout
    trainings = (records / "trainings").read_text().splitlines()
    assert sorted(line for line in trainings if line.startswith(f"{KILLED} ")) == [
        f"{KILLED} from 0",
        f"{KILLED} from 1",
    ]
    assert trainings.count(f"{FAILING} from 0") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", ["basic", pytest.param("ray", marks=pytest.mark.exhaustive)], indirect=True
)
def test_a_grid_with_a_failing_and_a_killed_job(tmp_path: Path, launcher: Launcher):
    check_grid(tmp_path, launcher, seeds=range(3))


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("launcher", LAUNCHERS, indirect=True)
def test_a_grid_of_eight(tmp_path: Path, launcher: Launcher):
    check_grid(tmp_path, launcher, seeds=range(8))


def check_search(folder: Path, launcher: Launcher) -> None:
    space = ("search=random", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "search.trials=3")
    done = launcher.run(folder, *space, "search.workers=2", *FAST, "name=x")
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "outputs/x/search.json").read_text())
    assert [trial["state"] for trial in found["trials"]] == ["finished"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib"], indirect=True)
def test_a_search(tmp_path: Path, launcher: Launcher):
    check_search(tmp_path, launcher)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("launcher", LAUNCHERS, indirect=True)
def test_a_search_by_each_launcher(tmp_path: Path, launcher: Launcher):
    check_search(tmp_path, launcher)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("launcher", LAUNCHERS, indirect=True)
def test_jobs_of_two_processes(tmp_path: Path, launcher: Launcher):
    """Each job starts its second process, whatever program its own process is."""
    done = launcher.run(tmp_path, "seed=0", "trainer=ddp_cpu", *FAST[:1], *FAST[2:], "name=x")
    assert done.returncode == 0, done.stderr
    alone = fork_command(tmp_path, "seed=0", "trainer=ddp_cpu", *FAST[:1], *FAST[2:], "name=y")
    assert alone.returncode == 0, alone.stderr
    (network,) = (tmp_path / "outputs/x").rglob("model.pth")
    assert network.read_bytes() == (tmp_path / "outputs/y/model.pth").read_bytes()


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("launcher", ["submitit_slurm"], indirect=True)
def test_a_job_that_slurm_ends_saves_a_checkpoint(tmp_path: Path, launcher: Launcher):
    words = ("seed=0,1", *FAST, "trainer.max_epochs=40", "name=x")
    sweep = ForkedCommand(
        tmp_path, "-m", *words, *launcher.words, COLUMNS="150", **launcher.variables
    )
    metrics = [tmp_path / f"outputs/x/seed-{seed}/metrics.csv" for seed in (0, 1)]
    deadline = time.monotonic() + 120
    while not all(file.is_file() for file in metrics) and time.monotonic() < deadline:
        time.sleep(0.1)
    for index in (0, 1):
        scancel = ["scancel", f"{FIRST_JOB}_{index}"]
        subprocess.run(scancel, env=os.environ | launcher.variables, check=True)
    out, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 1, err
    assert "seed-0 failed: interrupted" in out
    assert "Traceback" not in err
    done = launcher.run(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    log = max((tmp_path / "outputs/x/.submitit").rglob(f"{FIRST_JOB + 1}_0_*log.out"))
    assert "resuming     from step" in log.read_text()
    assert set(states(tmp_path).values()) == {"finished"}
