"""A run folder is locked by one living process."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vision_lab.core.errors import ConfigurationError
from vision_lab.run_folders import lock
from vision_lab.run_folders.folder import Run
from vision_lab.run_folders.lock import lock_run

HOLDING = """
import os, sys, time
from pathlib import Path
from vision_lab.run_folders.lock import lock_run
from vision_lab.run_folders.folder import Run
run = Run(Path(sys.argv[1]))
with lock_run(run):
    run.mark_pending()
    if os.fork() == 0:  # as a loader's worker: it lives on for a while when its parent is killed
        time.sleep(20)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(folder)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_holds_the_lock_until_it_dies(tmp_path: Path):
    run = Run(tmp_path / "x")
    process = holder(run.folder)
    try:
        with pytest.raises(ConfigurationError) as caught, lock_run(run):
            pass
        assert f"x is being used by process {process.pid} on " in str(caught.value)
        assert re.search(
            r"last heartbeat \d s ago\): wait until it has finished, or type another name=",
            str(caught.value),
        )
        assert run.state == "pending"
        process.send_signal(signal.SIGKILL)
        process.wait()
        with lock_run(run):  # although its worker is still there
            run.start()
        assert run.status["pid"] == os.getpid()
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def status(run: Run, *, host: str, silent: float, state: str = "running") -> None:
    run.folder.mkdir(exist_ok=True)
    file = run.folder / "status.json"
    file.write_text(
        json.dumps(
            {"state": state, "host": host, "pid": 1, "heartbeat": "2026-01-01T00:00:00+00:00"}
        )
    )
    os.utime(file, (time.time() - silent, time.time() - silent))


def test_a_process_on_another_host_holds_the_lock_while_its_heartbeat_is_recent(tmp_path: Path):
    run = Run(tmp_path / "x")
    status(run, host="elsewhere", silent=20)
    with (
        pytest.raises(
            ConfigurationError,
            match=r"x is being used by process 1 on elsewhere \(last heartbeat \d+ s ago\)",
        ),
        lock_run(run),
    ):
        pass
    assert run.status["host"] == "elsewhere"
    status(run, host="elsewhere", silent=61)
    with lock_run(run):
        run.mark_pending()


def test_the_heartbeat_is_updated_while_the_lock_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lock, "HEARTBEAT_INTERVAL_SECONDS", 0.02)
    run = Run(tmp_path / "x")
    with lock_run(run):
        run.start()
        first = (run.folder / "status.json").stat().st_mtime_ns
        deadline = time.monotonic() + 5
        while (
            run.folder / "status.json"
        ).stat().st_mtime_ns == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (run.folder / "status.json").stat().st_mtime_ns > first
        assert run.status["state"] == "running"
        run.finish({"metrics": {}})
        time.sleep(0.1)
        assert run.state == "finished"  # the heartbeat does not bring it back to life


def test_a_failed_write_leaves_no_file(tmp_path: Path):
    run = Run(tmp_path / "x")
    with lock_run(run):
        run.mark_pending()
    assert not run.folder.exists()


def test_existing_files_in_the_folder_stay(tmp_path: Path):
    run = Run(tmp_path / "x")
    run.folder.mkdir()
    (run.folder / "thesis.tex").write_text("years of work")
    with lock_run(run):
        run.mark_pending()
    assert [path.name for path in run.folder.iterdir()] == ["thesis.tex"]


def test_a_refused_lock_changes_no_file(tmp_path: Path):
    run = Run(tmp_path / "x")
    status(run, host="elsewhere", silent=0, state="pending")
    before = (run.folder / "status.json").read_bytes()
    with pytest.raises(ConfigurationError), lock_run(run):
        pass
    assert (run.folder / "status.json").read_bytes() == before
