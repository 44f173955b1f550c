"""A short version of experiments/attack, and a check that it would detect harm."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ATTACK = ROOT / "experiments" / "attack"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ATTACK / "attack.py"), *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_random_input_causes_no_harm(tmp_path: Path):
    done = run(tmp_path, "--count", "2", "--seed", "11", "--jobs", "1")
    assert done.returncode == 0, done.stdout
    for family in ("runs", "annotations", "images", "words"):
        assert f"{family}: 2 attempts" in done.stdout
        assert f"{family}: 0 findings" in done.stdout


HARM = {
    "code ran": "Path('../marker').touch()",
    "write elsewhere": "Path('../victim/notes.txt').write_text('x')",
    "starts a program": "subprocess.run(['true'])",
    "secret": "Path('copy').write_text(os.environ['SECRET_TOKEN'])",
    "traceback": "raise ValueError('x')",
    "crash": "os.kill(os.getpid(), 9)",
    "terminal": "print('\\x1b]0;title\\x07')",
    "memory": "bytearray(guard.MEMORY_BYTES + 100_000_000).count(b'x')",
    "silent": "return 1",
}
"""finding: code in the place of the command that must be noticed as such."""


@pytest.mark.parametrize("kind", HARM)
def test_harm_is_detected(tmp_path: Path, kind: str):
    script = f"""
import os, subprocess, sys, time
from pathlib import Path
from random import Random
sys.path.insert(0, {str(ATTACK)!r})
import guard
from vision_lab.cli import main as app

guard.MEMORY_BYTES = 1_000_000_000

def harm(words):
    {HARM[kind]}
    return 0

app.main = harm
guard.prepare()
attempt = guard.start(lambda chance, folder, runs: [], Random(0), Path(), Path({str(tmp_path / "attempt")!r}))
while (outcome := attempt.poll()) is None:
    time.sleep(0.01)
print([finding.kind for finding in outcome.findings])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert kind in done.stdout.decode(), done.stderr.decode()
