"""The report: what it shows, without a network, and without running what others have written."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.compare.made_runs import make_run
from vision_lab.compare.charts import find_front, make_charts
from vision_lab.compare.comparison import Comparison, compare_runs
from vision_lab.compare.report import make_report
from vision_lab.compare.runs import find_runs, read_runs
from vision_lab.compare.samples import find_label_errors
from vision_lab.compare.tables import make_rows

HOSTILE = (
    "<script>document.title='run'</script>",
    "</script><script>document.title='run'</script>",
    "<img src=x onerror=\"document.title='run'\">",
    "'\"`><svg onload=document.title='run'>",
    '<a href="javascript:document.title=1">x</a>',
)
"""Texts that would change the title of the page if they were interpreted."""


LOSS_COLUMNS = "split,sample,target,predicted,confidence,loss"


def compare_folder(folder: Path) -> Comparison:
    return compare_runs(*read_runs(find_runs([str(folder)])))


def make_runs(folder: Path, models: tuple[str, ...] = ("small", "large")) -> None:
    for rank, model in enumerate(models):
        for seed in range(2):
            run = make_run(
                folder / f"{rank}-{seed}",
                score=0.7 + 0.05 * rank + 0.01 * seed,
                config={"seed": seed, "optimizer.name": model, "optimizer.lr": 0.1 + rank},
                parameters=1000 * (rank + 1),
                per_class={model: {"accuracy": 0.5}, "cat": {"accuracy": 0.7 + rank / 10}},
            )
            (run / "metrics.csv").write_text(
                f"epoch,step,train/loss,val/accuracy\n0,3,1.5,0.{seed + 1}\n1,6,{1 / (rank + 1)},0.5\n"
            )
            rows = f"test,{model},cat,{model},0.9,{2 + rank}\ntest,b.png,cat,dog,0.9,1.5\n"
            (run / "sample_losses.csv").write_text(f"{LOSS_COLUMNS}\n{rows}")
            (run / "images").mkdir()
            Image.new("RGB", (960, 96), (0, 90, 0)).save(run / "images/high_losses.jpg")
            Image.new("RGB", (40, 30), (rank * 50, 0, 0)).save(run / "images/test_predictions.png")


def test_what_the_report_shows(tmp_path: Path):
    make_runs(tmp_path / "runs")
    comparison = compare_folder(tmp_path / "runs")
    text = make_report(
        comparison,
        rows=make_rows(comparison),
        warnings=["the curves are without x"],
        label_errors=find_label_errors(comparison),
        command="python -m vision_lab mode=compare",
    )
    page = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "val/accuracy of 2 groups, task classify" in page
    assert page.count("data:image/jpeg;base64,") == 2 + 2  # predictions, samples
    assert "test 10 a, val 5 b" in page
    assert '<p class="warning">the curves are without x</p>' in page
    assert '<td>optimizer.lr</td><td class="long">1.1</td><td class="long">0.1</td>' in page
    assert "python -m vision_lab mode=compare" in page
    assert set(make_charts(comparison)) == {
        "val/accuracy by epoch",
        "train/loss by epoch",
        "val/accuracy against parameters",
        "Classes: difference from optimizer.lr=1.1 optimizer.name=large",
    }
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # nothing is loaded


def test_curves_are_means_with_a_band(tmp_path: Path):
    make_runs(tmp_path / "runs")
    curve, band = make_charts(compare_folder(tmp_path / "runs"))["val/accuracy by epoch"].data[:2]
    assert curve.name == "lr=1.1 name=large"
    assert list(curve.x) == [1, 2]
    assert list(curve.y) == pytest.approx([0.15, 0.5])
    assert list(band.y) == pytest.approx([0.15 + 0.0707, 0.5, 0.5, 0.15 - 0.0707], abs=1e-4)


def test_the_front_has_groups_that_no_cheaper_one_equals(tmp_path: Path):
    make_runs(tmp_path / "runs", ("a", "b", "c"))
    groups = compare_folder(tmp_path / "runs").groups  # c, b, a
    points = [(2.0, groups[0]), (3.0, groups[1]), (1.0, groups[2])]
    assert find_front(points, "max") == [points[2], points[0]]
    assert find_front(points, "min") == [points[2]]


def test_texts_of_runs_are_escaped(tmp_path: Path):
    make_runs(tmp_path / "runs", HOSTILE)
    make_run(tmp_path / "runs/bad", score=0, state="failed")
    status = tmp_path / "runs/bad/status.json"
    status.write_text(status.read_text().replace("it failed", HOSTILE[0]))
    comparison = compare_folder(tmp_path / "runs")
    text = make_report(
        comparison,
        rows=make_rows(comparison),
        warnings=[HOSTILE[1]],
        label_errors=find_label_errors(comparison),
        command=HOSTILE[0],
    )
    for hostile in HOSTILE:
        assert hostile not in text
    assert "&lt;script&gt;" in text


def test_images_are_decoded_as_images_only(tmp_path: Path):
    """Pillow would pass PostScript to another program, whatever the name of the file is."""
    make_runs(tmp_path / "runs")
    for name in ("test_predictions.png", "high_losses.jpg"):
        for file in (tmp_path / "runs").glob(f"*/images/{name}"):
            file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    comparison = compare_folder(tmp_path / "runs")
    text = make_report(
        comparison, rows=make_rows(comparison), warnings=[], label_errors=([], 0), command="x"
    )
    assert "data:image/jpeg" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="requires Chromium")
def test_the_report_in_a_browser(tmp_path: Path):
    """All charts are drawn, and nothing that others have written is run."""
    make_runs(tmp_path / "runs", HOSTILE)
    comparison = compare_folder(tmp_path / "runs")
    file = tmp_path / "report.html"
    label_errors = find_label_errors(comparison)
    text = make_report(
        comparison,
        rows=make_rows(comparison),
        warnings=[],
        label_errors=label_errors,
        command="x",
    )
    file.write_text(text)
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    done = subprocess.run(
        [
            *("chromium", *flags.split(), "--enable-logging=stderr", "--virtual-time-budget=5000"),
            *(f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", file.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "<title>val/accuracy: comparison of 5 groups</title>" in done.stdout
    charts = len(make_charts(comparison))
    assert charts == 5
    assert len(re.findall(r"<div class=\"[^\"]*svg-container\"", done.stdout)) == charts
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert errors == []
