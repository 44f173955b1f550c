"""Output files and TensorBoard pages of a run."""

import csv
from contextlib import chdir
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from vision_lab.cli.main import main
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
        *(f"{split}/{name}" for split in ("val", "test") for name in measured),
        "val/best_accuracy",
        "train/step_loss",
        "train/lr",
        "train/images_per_second",
    }
    assert [event.step for event in seen.Scalars("train/step_loss")] == [1, 2, 3, 4, 5, 6]
    assert len(seen.Scalars("val/accuracy")) == 2
    assert len(seen.Scalars("test/accuracy")) == 1
    kinds = {"predictions", "confusion", "mistakes"}
    assert set(seen.Tags()["images"]) == {
        f"{split}/{kind}" for split in ("val", "test") for kind in kinds
    }
    assert [len(seen.Images(f"val/{kind}")) for kind in sorted(kinds)] == [2, 2, 2]
    text = seen.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "    seed: 5" in text
    assert "      _target_: vision_lab.models.architectures.cifar_resnet.CifarResNet" in text


def test_hparams_show_choices_and_the_best_metric(folder: Path):
    seen = EventAccumulator(str(folder))
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
        "lr": 0.001,
        "seed": 5.0,
    }
    experiment = HParamsPluginData.FromString(
        metadata["_hparams_/experiment"].plugin_data.content
    ).experiment
    metrics = [info.name.tag for info in experiment.metric_infos]
    assert metrics == ["val/best_accuracy", "test/accuracy", "test/loss"]
    result = Run(folder).result
    assert result is not None
    best = max(event.value for event in seen.Scalars("val/accuracy"))
    assert seen.Scalars("val/best_accuracy")[0].value == best


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
