"""Output files and TensorBoard pages of a run."""

import csv
from contextlib import chdir
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from vision_lab.cli.main import main
from vision_lab.core.text import escape_markdown
from vision_lab.run_folders.folder import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, trained once."""
    words = ("name=seen", "debug=fast", "trainer=cpu", "trainer.max_epochs=2", "seed=5")
    with chdir(tmp_path_factory.mktemp("files")):
        assert main(words) == 0
        return Path("outputs/seen").absolute()


def test_tensorboard(folder: Path):
    seen = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    seen.Reload()
    scalars = set(seen.Tags()["scalars"])
    measured = {"loss", "accuracy", "top5", "f1", "calibration_error"}
    assert scalars == {
        "train/loss",
        "train/accuracy",
        *(f"val/{name}" for name in measured),
        "train/step_loss",
        "train/lr",
        "train/images_per_second",
    }
    assert [event.step for event in seen.Scalars("train/step_loss")] == [1, 2, 3, 4, 5, 6]
    assert len(seen.Scalars("val/accuracy")) == 2
    kinds = {"predictions", "confusion", "mistakes"}
    of_test = kinds | {"roc", "precision_recall"}
    assert set(seen.Tags()["images"]) == {
        *(f"val/{kind}" for kind in kinds),
        *(f"with best checkpoint/test/{kind}" for kind in of_test),
    }
    assert [len(seen.Images(f"val/{kind}")) for kind in sorted(kinds)] == [2, 2, 2]
    text = seen.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "    seed: 5" in text
    assert "      _target_: vision_lab.models.architectures.cifar_resnet.CifarResNet" in text


def test_test_metrics_are_a_table(folder: Path):
    seen = EventAccumulator(str(folder))
    seen.Reload()
    text = seen.Tensors("test/text_summary")[0].tensor_proto.string_val[0].decode()
    result = Run(folder).result
    assert result is not None
    assert len(result["metrics"]) == 5
    for name, value in result["metrics"].items():
        assert f"| {escape_markdown(name)} | {value:.6g} |" in text.splitlines()


def test_train_and_val_of_a_metric_are_one_chart(folder: Path):
    seen = EventAccumulator(str(folder))
    seen.Reload()
    layout = Layout.FromString(seen.Tensors(CONFIG_SUMMARY_TAG)[0].tensor_proto.string_val[0])
    (category,) = layout.category
    charts = {chart.title: list(chart.multiline.tag) for chart in category.chart}
    assert charts == {name: [f"^train/{name}$", f"^val/{name}$"] for name in ("loss", "accuracy")}


def test_hparams_show_choices_and_results_of_the_best_checkpoint(folder: Path):
    seen = EventAccumulator(str(folder / "hparams"))
    seen.Reload()
    metadata = seen.summary_metadata
    start = HParamsPluginData.FromString(
        metadata["_hparams_/session_start_info"].plugin_data.content
    )
    chosen = {
        name: getattr(value, str(value.WhichOneof("kind")))
        for name, value in start.session_start_info.hparams.items()
    }
    assert chosen == {
        "model": "resnet20",
        "head": "linear",
        "data": "fashion_mini",
        "optimizer.lr": 0.001,
        "seed": 5.0,
        "debug": "fast",
        "trainer": "cpu",
        "trainer.max_epochs": 2.0,
    }
    end = HParamsPluginData.FromString(metadata["_hparams_/session_end_info"].plugin_data.content)
    assert end.session_end_info.status == STATUS_SUCCESS
    assert "_hparams_/experiment" not in metadata  # TensorBoard would use that of one run for all
    result = Run(folder).result
    assert result is not None
    shown = {tag: seen.Scalars(tag)[-1].value for tag in seen.Tags()["scalars"]}
    assert shown == pytest.approx(
        {
            "with best checkpoint/val/accuracy": result["monitored"]["val/accuracy"],
            "with best checkpoint/test/accuracy": result["metrics"]["test/accuracy"],
            "with best checkpoint/test/loss": result["metrics"]["test/loss"],
        }
    )


def test_a_failed_run_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    words = ("name=x", "debug=fast", "trainer=cpu", "optimizer.lr=1e30", "loss=cross_entropy")
    assert main(words) != 0
    seen = EventAccumulator("outputs/x/hparams")
    seen.Reload()
    content = seen.summary_metadata["_hparams_/session_end_info"].plugin_data.content
    end = HParamsPluginData.FromString(content)
    assert end.session_end_info.status == STATUS_FAILURE


def test_metrics_and_speed_have_a_row_for_each_epoch(folder: Path):
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["step"]) for row in rows] == [("0", "3"), ("1", "6")]
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/f1"} < set(rows[0])
    assert all(value for row in rows for value in row.values())
    with (folder / "speed.csv").open() as file:
        speeds = list(csv.DictReader(file))
    assert [row["epoch"] for row in speeds] == ["0", "1"]
    assert float(speeds[0]["images_per_second"]) == pytest.approx(
        24 / float(speeds[0]["seconds"]), rel=0.05
    )
