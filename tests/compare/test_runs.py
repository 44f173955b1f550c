"""Run folders that are found, read, or left out with a reason."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compare.made_runs import make_run
from tests.processes import ROOT
from vision_lab.compare.runs import find_runs, read_runs
from vision_lab.core.errors import ConfigurationError


def test_runs_of_sweeps_folders_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/seed-0", "a/seed-1", "b/seed-0", "c", "[odd]/seed-0"):
        make_run(Path("outputs") / name, score=0.5)
    make_run(Path("outputs/a/replaced/old"), score=0.5)
    Path("outputs/a/images").mkdir()

    def names(*patterns: str) -> list[str]:
        return [str(run) for run in find_runs(patterns)]

    assert names("outputs/a") == ["outputs/a/seed-0", "outputs/a/seed-1"]
    assert names("outputs/c") == ["outputs/c"]
    assert names("outputs/[ab]") == [*names("outputs/a"), "outputs/b/seed-0"]
    assert names("outputs/*/seed-0") == [
        "outputs/[odd]/seed-0",
        "outputs/a/seed-0",
        "outputs/b/seed-0",
    ]
    assert names("outputs/[odd]") == ["outputs/[odd]/seed-0"]
    assert names("outputs/a", "outputs/a/seed-1", "outputs/c") == [*names("outputs/a"), "outputs/c"]
    assert len(names("outputs")) == 5
    with pytest.raises(ConfigurationError, match=r"runs=outputs/x: no such folder: type the"):
        find_runs(["outputs/x"])
    with pytest.raises(ConfigurationError, match=r"runs=outputs/a/images: there is no run in it"):
        find_runs(["outputs/a/images"])


def test_runs_without_a_result_are_left_out(tmp_path: Path):
    make_run(tmp_path / "good", score=0.5)
    for state in ("failed", "pruned", "running"):
        make_run(tmp_path / state, score=0.5, state=state)
    damaged = {
        "torn": ("result.json", '{"metrics": {'),
        "foreign": ("result.json", "[1, 2]"),
        "nested": ("config.yaml", "[" * 5000),
        "empty": ("overrides.yaml", ""),
        "future": ("result.json", json.dumps({"version": 9, "scores": {}})),
        "words": ("speed.csv", "epoch,images_per_second\n0,fast\n"),
        "binary": ("config_resolved.yaml", "\x00\x01"),
        "several": ("status.json", '{"state": "exploded"}'),
    }
    for name, (file, content) in damaged.items():
        make_run(tmp_path / name, score=0.5)
        (tmp_path / name / file).write_text(content)
    make_run(tmp_path / "gone", score=0.5)
    (tmp_path / "gone/result.json").unlink()
    finished, left_out = read_runs(find_runs([str(tmp_path)]))
    assert [run.run.folder.name for run in finished] == ["good"]
    reasons = {item.run.folder.name: item.reason for item in left_out}
    assert set(reasons) == {*damaged, "failed", "pruned", "running", "gone"}
    assert reasons["failed"] == "failed: it failed"
    assert reasons["pruned"] == "pruned by a search"
    assert reasons["running"] == "unfinished: running"
    assert "result.json is damaged" in reasons["torn"]
    assert "result.json no longer exists" in reasons["gone"]
    assert "config.yaml is damaged" in reasons["nested"]
    assert all("\n" not in reason for reason in reasons.values())


def test_what_is_read_of_a_run(tmp_path: Path):
    folder = make_run(tmp_path / "x", score=0.5, config={"seed": 3, "optimizer.lr": 0.2})
    (folder / "speed.csv").write_text("epoch,images_per_second\n0,10\n1,nan\n2,30\n3,40\n")
    ((run,), _) = read_runs(find_runs([str(folder)]))
    assert run.pairing == {"seed": 3}
    assert run.config["optimizer.lr"] == 0.2
    assert not {"seed", "name", "data.root"} & set(run.config)
    assert run.metrics == {"val/accuracy": 0.5, "test/accuracy": 0.49, "test/loss": 0.5}
    assert run.costs == {
        "seconds": 10.0,
        "parameters": 1000.0,
        "flops": 5000.0,
        "images_per_second": 30.0,
    }


@pytest.mark.slow
def test_a_thousand_runs_without_torch(tmp_path: Path):
    for number in range(1000):
        config = {"seed": number % 5, "optimizer.lr": number // 5}
        make_run(tmp_path / f"runs/{number}", score=0.5 + number / 3000, config=config)
    code = (
        "import sys; sys.argv = ['x', 'mode=compare', 'runs=runs']\n"
        "from vision_lab.cli.main import main\n"
        "assert main() == 0\n"
        "assert 'torch' not in sys.modules\n"
        "status = open('/proc/self/status').read()\n"  # rusage would count the process that forks
        "print('megabytes', int(status.partition('VmHWM:')[2].split()[0]) // 1000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.rpartition("megabytes ")[2]) < 500
    groups = json.loads((tmp_path / "runs/compare/compare.json").read_text())["groups"]
    assert len(groups) == 200
