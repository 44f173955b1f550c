"""The plot of a comparison."""

import io
from pathlib import Path

from PIL import Image

from tests.compare.made_runs import make_run
from vision_lab.compare.comparison import compare_runs
from vision_lab.compare.plot import draw_plot
from vision_lab.compare.runs import find_runs, read_runs


def test_groups_with_strange_names_are_drawn(tmp_path: Path):
    for index, name in enumerate(("$x_{", "<b>\x1b[0m", "plain " * 30)):
        for seed in range(2):
            config = {"seed": seed, "optimizer.name": name}
            run = tmp_path / f"{index}-{seed}"
            make_run(run, score=0.5 + index / 10, config=config, seconds=10.0 * 4**index)
    comparison = compare_runs(*read_runs(find_runs([str(tmp_path)])))
    image = Image.open(io.BytesIO(draw_plot(comparison)))
    assert image.format == "PNG"
    assert image.width > 1000  # metric and costs


def test_one_group_has_no_chart_of_costs(tmp_path: Path):
    make_run(tmp_path / "x", score=0.5)
    comparison = compare_runs(*read_runs(find_runs([str(tmp_path)])))
    assert Image.open(io.BytesIO(draw_plot(comparison))).width < 800
