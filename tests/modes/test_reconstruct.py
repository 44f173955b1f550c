"""task=reconstruct on the command line: files, drawings, anomalies, errors."""

import csv
import json
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import Outcome
from vision_lab.cli.main import main

Command = Callable[..., Outcome]

SMALL = (
    "task=reconstruct",
    "trainer=cpu",
    "logger=none",
    "model.encoder.base_channels=4",
    "model.latent_dim=8",
    "data.samples_per_class=10",
    "trainer.max_epochs=2",
    "task.num_samples=20",
    "task.num_preview=8",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a variational autoencoder that does not learn from bags."""
    folder = tmp_path_factory.mktemp("trained")
    with chdir(folder):
        assert main([*SMALL, "model=vae", "task.anomalies=[bag]", "name=vae"]) == 0
    return folder


def test_a_run_has_metrics_samples_and_drawings(trained: Path):
    run = trained / "outputs" / "vae"
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    assert set(metrics) == {f"test/{name}" for name in ("auroc", "fid", "loss", "psnr", "ssim")}
    assert {path.name for path in (run / "images").iterdir()} == {
        "test_interpolation.png",
        "test_predictions.png",
        "test_worst.png",
        "val_predictions.png",
        "val_worst.png",
    }
    assert {path.name for path in (run / "samples").iterdir()} == {
        "epoch=000.png",
        "epoch=001.png",
        "epoch=002.png",
        "epochs.gif",
    }
    with (run / "metrics.csv").open() as file:
        columns = next(csv.reader(file))
    assert "val/psnr" in columns


def test_predictions_are_scores_and_heat_maps(
    trained: Path, command: Command, tmp_path: Path
) -> None:
    for index, size in enumerate([(28, 28), (60, 40)]):
        noise = np.random.default_rng(index).integers(0, 255, size, dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{index}.png")
    run = trained / "outputs" / "vae"
    outcome = command("mode=predict", f"run={run}", f"source={tmp_path}", "name=p", "trainer=cpu")
    assert outcome.code == 0, outcome.err
    (folder,) = {path.parent for path in run.rglob("predictions.csv")}
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    assert all(0 < float(row["anomaly_score"]) < 1 for row in rows)
    assert Image.open(folder / "heat_maps" / "1.png").size == (40, 60)
    assert Image.open(folder / "reconstructions" / "1.png").size == (32, 32)


def test_evaluation_is_bit_exactly_that_of_training(trained: Path, command: Command) -> None:
    outcome = command("mode=evaluate", f"run={trained / 'outputs' / 'vae'}", "trainer=cpu")
    assert outcome.code == 0, outcome.err
    assert "bit-exactly the result reported after training" in outcome.out


def test_the_encoder_starts_a_classifier(trained: Path, command: Command) -> None:
    run = trained / "outputs" / "vae"
    outcome = command(
        *("model=conv_encoder", "model.network.base_channels=4", f"model.weights=run:{run}"),
        *("debug=fast", "trainer=cpu", "logger=none"),
    )
    assert outcome.code == 0, outcome.err
    assert "randomly initialized: fc.weight, fc.bias" in " ".join(outcome.out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("task=reconstruct", "model=resnet18"),
            "model=resnet18 is a backbone, but task=reconstruct requires an encoder with a decoder: "
            "type model=autoencoder or vae head=none",
        ),
        (
            ("task=classify", "model=vae"),
            "model=vae is for the images themselves, but task=classify learns from labels",
        ),
        (
            ("task=generate", "model=vae"),
            "model=vae is for the images themselves, but task=generate learns from images alone",
        ),
        (
            ("task=reconstruct", "loss=cross_entropy"),
            "loss=cross_entropy is for labels, but task=reconstruct learns from the images "
            "themselves: type loss=mse or pixel_bce or ssim",
        ),
        (
            ("task=reconstruct", "task.anomalies=[hat]"),
            "task.anomalies=[hat]: type some of its classes, t-shirt",
        ),
        (
            ("task=reconstruct", "data=scenes", "task.anomalies=[bag]"),
            "task.anomalies=[bag]: type []: the data has no labels",
        ),
    ],
)
def test_impossible_combinations_are_refused(
    command: Command, words: tuple[str, ...], message: str
) -> None:
    outcome = command(*words, "debug=fast", "trainer=cpu")
    assert outcome.code == 1
    assert message in outcome.err


def test_any_data_any_encoder(command: Command) -> None:
    """Scenes, whose masks are not read, and an encoder of torchvision."""
    outcome = command(
        *("task=reconstruct", "data=scenes", "debug=fast", "trainer=cpu", "logger=none"),
        *("model.encoder._target_=torchvision.models.resnet18", "~model.encoder.image_size"),
        *("~model.encoder.base_channels", "model.base_channels=8", "callbacks.image_logger=null"),
        *("data.num_images.train=16",),
        *("data.num_images.val=8", "data.num_images.test=8"),
    )
    assert outcome.code == 0, outcome.err
