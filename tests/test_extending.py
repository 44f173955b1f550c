"""The page about parts of one's own: trained, killed, resumed, evaluated and predicted with."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.processes import fork_command, run_command
from tests.test_docs import ROOT, typed

TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def files() -> dict[str, str]:
    """Return the files of the page, each named in its first line."""
    found = {}
    for block in re.findall(r"```(?:python|yaml)\n(.*?)```", TEXT, re.DOTALL):
        name, _, content = block.partition("\n")
        found[name.removeprefix("# ")] = content
    return found


def test_the_page_has_nine_python_files_and_short_examples():
    lengths = {name: len(content.splitlines()) for name, content in files().items()}
    assert sum(name.endswith(".py") for name in lengths) == 9
    assert len(lengths) == 19
    for name in ("optimizer.py", "callback.py", "logger.py", "task.py"):
        assert lengths[f"my_lab/{name}"] <= 15, name
    assert all(count <= 15 for name, count in lengths.items() if name.endswith(".yaml"))


@pytest.fixture
def laboratory(tmp_path: Path) -> Path:
    for name, content in files().items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    random = np.random.default_rng(0)
    lines = []
    for split, count in (("train", 16), ("val", 4), ("test", 4)):
        (tmp_path / "streets" / split).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            x, y = random.integers(2, 30, 2)
            pixels[y : y + 20, x : x + 24] = 220
            Image.fromarray(pixels).save(tmp_path / "streets" / split / f"{number}.png")
            lines.append(f"{split}/{number}.png: car@{x},{y}-{x + 24},{y + 20}")
    (tmp_path / "streets" / "boxes.txt").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.slow
def test_own_parts_train_resume_evaluate_and_predict(laboratory: Path):
    train, evaluate, predict = typed(TEXT)
    changes = ["task.metrics.confident.threshold=0.01", "trainer=cpu", "trainer.max_epochs=3"]
    train += [*changes, "data.batch_size=4"]
    kill = "+callbacks.kill._target_=tests.kill_callback.Kill"
    steps = "callbacks.resume_checkpoint.every_n_steps=2"
    runs = laboratory / "outputs"
    whole = run_command(laboratory, *train)
    assert whole.returncode == 0, whole.stderr
    killed = [word.replace("name=mine", "name=killed") for word in [*train, kill, steps]]
    died = fork_command(laboratory, *killed, KILL="step:5", DEATH="SIGKILL", RUN="1")
    assert died.returncode == -9, died.stderr
    resumed = fork_command(laboratory, *killed)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming" in resumed.stdout
    for name in ("metrics.csv", "model.pth"):
        assert (runs / "mine" / name).read_bytes() == (runs / "killed" / name).read_bytes(), name
    result = json.loads((runs / "mine" / "result.json").read_text())
    assert result["metrics"]["test/confident"] > 0
    assert "confident" in whole.stdout
    rates = (runs / "mine" / "rates.txt").read_text().splitlines()
    assert len(rates) == 3
    assert rates[0].startswith("0 [0.0009")
    lines = (runs / "mine" / "lines.txt").read_text().splitlines()
    assert [line.split()[1] for line in lines].count("val/map") == 3
    refused = fork_command(laboratory, *evaluate[:-1])
    assert refused.returncode == 2
    assert (
        "my_lab.task.Careful: this is from the run folder and could run any code" in refused.stderr
    )
    evaluated = fork_command(laboratory, *evaluate)
    assert "bit-exactly the result reported after training" in evaluated.stdout, evaluated.stderr
    predicted = fork_command(laboratory, *predict)
    assert predicted.returncode == 0, predicted.stderr
    with (runs / "mine" / "predict" / "predictions.csv").open() as file:
        paths = {row["path"] for row in csv.DictReader(file)}
    assert len(paths) == 4
    assert len(list((runs / "mine" / "predict" / "images").iterdir())) == 4
