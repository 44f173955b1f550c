"""Curves with bands and HPARAMS rows of groups, read by TensorBoard."""

import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG
from tensorboard.plugins.hparams import metadata

from tests.compare.made_runs import make_run
from vision_lab.compare.comparison import compare_runs
from vision_lab.compare.runs import find_runs, read_runs
from vision_lab.compare.tensorboard import write_groups
from vision_lab.core.errors import ConfigurationError


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_groups_have_curves_with_bands_and_rows(tmp_path: Path):
    for lr, first in ((0.1, 0.5), ("../<x>", 0.7)):
        for seed in range(2):
            score = first + seed / 10
            folder = tmp_path / f"{first}-{seed}"
            make_run(folder, score=score, config={"seed": seed, "optimizer.lr": lr})
            rows = f"0,4,{score - 0.2},nan\n1,8,{score},0.5\n"
            (folder / "metrics.csv").write_text("epoch,step,val/accuracy,val/loss\n" + rows)
    comparison = compare_runs(*read_runs(find_runs([str(tmp_path)])))
    write_groups(comparison, tmp_path)
    write_groups(comparison, tmp_path)  # in place of the first ones
    folders = sorted((tmp_path / "tensorboard").iterdir())
    assert [folder.name for folder in folders] == ["01 lr=..-x-", "02 lr=0.1"]
    curves = read(folders[1])
    points = [(event.step, event.value) for event in curves.Scalars("val/accuracy")]
    assert points == [(3, pytest.approx(0.35)), (7, pytest.approx(0.55))]
    upper = curves.Scalars("with deviation/val/accuracy upper")[1].value
    assert upper == pytest.approx(0.55 + 0.1 / math.sqrt(2))
    assert [event.step for event in curves.Scalars("val/loss")] == [7]
    layout = Layout.FromString(curves.Tensors(CONFIG_SUMMARY_TAG)[0].tensor_proto.string_val[0])
    (series,) = layout.category[0].chart[0].margin.series
    assert (series.value, series.upper) == ("val/accuracy", "with deviation/val/accuracy upper")


def test_links_of_others_are_refused(tmp_path: Path):
    make_run(tmp_path / "runs" / "x", score=0.5)
    kept = tmp_path / "kept"
    (kept / "inside").mkdir(parents=True)
    (tmp_path / "runs" / "tensorboard").symlink_to(kept)
    comparison = compare_runs(*read_runs(find_runs([str(tmp_path / "runs")])))
    with pytest.raises(ConfigurationError, match="symbolic link"):
        write_groups(comparison, tmp_path / "runs")
    assert (kept / "inside").exists()


def test_steps_that_are_no_steps_are_left_out(tmp_path: Path):
    run = make_run(tmp_path / "x", score=0.5)
    rows = f"0,{10**20},0.5\n1,,0.6\n2\n"
    (run / "metrics.csv").write_text("epoch,step,val/accuracy\n" + rows)
    comparison = compare_runs(*read_runs(find_runs([str(tmp_path)])))
    write_groups(comparison, tmp_path)
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert len(read(folder).Scalars("val/accuracy")) == 2


def test_rows_have_the_settings_and_means_of_groups(tmp_path: Path):
    for seed in range(2):
        make_run(tmp_path / f"a{seed}", score=0.5 + seed / 10, config={"seed": seed})
        make_run(tmp_path / f"b{seed}", score=0.7, config={"seed": seed, "optimizer.lr": 0.2})
    comparison = compare_runs(*read_runs(find_runs([str(tmp_path)])))
    write_groups(comparison, tmp_path)
    row = read(tmp_path / "tensorboard" / "02 lr=0.1" / "hparams")
    content = row.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
    settings = metadata.parse_session_start_info_plugin_data(content).hparams
    assert settings["optimizer.lr"].number_value == 0.1
    assert settings["model"].string_value == "resnet18"
    assert settings["runs"].number_value == 2
    shown = {tag: row.Scalars(tag)[0].value for tag in row.Tags()["scalars"]}
    assert shown == pytest.approx(
        {
            "with best checkpoint/val/accuracy": 0.55,
            "with best checkpoint/test/accuracy": 0.54,
            "with best checkpoint/test/loss": 0.45,
        }
    )
