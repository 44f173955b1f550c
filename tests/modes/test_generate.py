"""task=generate on the command line: files, samples, metrics, errors."""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.builders import FAST, Outcome
from vision_lab.cli.main import main
from vision_lab.run_folders.folder import Run

Command = Callable[..., Outcome]

SMALL = (
    "task=generate",
    "trainer=cpu",
    "model.generator_channels=4",
    "model.discriminator_channels=4",
    "task.num_samples=60",
    "trainer.log_every_n_steps=4",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=8",
    "trainer.limit_test_batches=4",
    "data.batch_size=16",
    "task.num_preview=16",
    "data.samples_per_class=20",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a conditional GAN and one of a classifier."""
    folder = tmp_path_factory.mktemp("made")
    with chdir(folder):
        assert main([*SMALL, "model.conditioning=concatenation", "name=made"]) == 0
        classifier = (
            "data.samples_per_class=20",
            "model.network.depth=8",
            "callbacks.image_logger=null",
        )
        assert main([*FAST, *classifier, "name=classifier"]) == 0
    return folder


@pytest.fixture
def run(command: Command, made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Path("outputs/made")


def pixels(folder: Path) -> dict[str, np.ndarray]:
    return {file.name: np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))}


def test_files_of_a_run(run: Path):
    assert sorted(path.name for path in (run / "samples").iterdir()) == [
        "epoch=000.png",
        "epoch=001.png",
        "epoch=002.png",
        "epochs.gif",
    ]
    with Image.open(run / "samples" / "epochs.gif") as animation:
        assert (animation.n_frames, animation.size) == (
            3,
            (10 * 66 + 2, 2 * 66 + 2),
        )  # ten classes in columns
    assert sorted(path.name for path in (run / "images").iterdir()) == [
        "test_interpolation.png",
        "test_neighbors.png",
        "test_real.png",
    ]
    result = json.loads((run / "result.json").read_text())
    assert result["measured_with"] == {
        "feature_extractor": "fashion_mini",
        "num_samples": 60,
        "real": 64,
        "training": 60,
    }
    assert result["steps"] == 16
    metrics = result["metrics"]
    assert metrics["test/real_fid"] < metrics["test/noise_fid"]
    assert set(metrics) == {
        *(
            f"test/{kind}{name}"
            for kind in ("", "real_")
            for name in ("fid", "kid", "precision", "recall")
        ),
        "test/diversity",
        "test/noise_fid",
    }
    state = torch.load(run / "model.pth", weights_only=True)
    assert {name.split(".")[0] for name in state} == {"generator", "discriminator"}


def test_tensorboard_contents(run: Path):
    seen = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0})
    seen.Reload()
    scalars, images = seen.Tags()["scalars"], seen.Tags()["images"]
    assert set(images) == {
        "samples",
        *(f"with best checkpoint/test/{name}" for name in ("interpolation", "neighbors", "real")),
    }
    assert [event.step for event in seen.Images("samples")] == [0, 8, 16]
    losses = {f"{name}_loss" for name in ("generator", "discriminator")}
    scores = {f"{kind}_{name}" for kind in ("real", "fake") for name in ("score", "accuracy")}
    assert {name for name in scalars if name.startswith("train/")} == {
        *(f"train/{name}" for name in losses | scores),
        *(f"train/step_{name}" for name in losses),
        "train/generator_lr",
        "train/discriminator_lr",
        "train/images_per_second",
    }
    assert [event.step for event in seen.Scalars("val/fid")] == [7, 15]
    layout = seen.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    for chart in (b"losses", b"scores", b"^val/fid$", b"^val/real_fid$", b"^train/generator_loss$"):
        assert chart in layout


def test_samples_are_reproducible(command: Command, run: Path):
    assert command("mode=predict", f"run={run}", "mode.num_samples=12", "seed=5").code == 0
    folder = run / "predict" / "seed-5"
    first = pixels(folder / "samples")
    assert sorted(first) == [f"{number:05d}.png" for number in range(12)]
    assert (folder / "contact_sheet.png").is_file()
    archive = np.load(folder / "latents.npz")
    assert archive["latents"].shape == (12, 100)
    assert archive["labels"].tolist() == [*range(10), 0, 1]
    assert archive["seed"] == 5
    outcome = command("mode=predict", f"run={run}", f"source={folder}/latents.npz")
    assert outcome.code == 0, outcome.err
    folder = run / "predict" / "seed-5-latents-again"
    again = pixels(folder / "samples")
    assert np.load(folder / "latents.npz")["seed"] == 5
    assert all(np.array_equal(first[name], again[name]) for name in first)
    # Fewer of the same seed are the first of them, and the others go.
    assert command("mode=predict", f"run={run}", "mode.num_samples=3", "seed=5").code == 0
    fewer = pixels(run / "predict" / "seed-5" / "samples")
    assert sorted(fewer) == ["00000.png", "00001.png", "00002.png"]
    assert all(np.array_equal(first[name], fewer[name]) for name in fewer)


def test_another_seed_and_chosen_classes(command: Command, run: Path):
    for seed in (1, 2):
        assert command("mode=predict", f"run={run}", "mode.num_samples=2", f"seed={seed}").code == 0
    one, two = (
        pixels(run / "predict" / f"seed-{seed}" / "samples")["00000.png"] for seed in (1, 2)
    )
    assert not np.array_equal(one, two)
    assert (
        command(
            "mode=predict", f"run={run}", "mode.num_samples=4", "mode.class_names=[bag,dress]"
        ).code
        == 0
    )
    (folder,) = (run / "predict").glob("seed-0_bag-dress*")
    assert np.load(folder / "latents.npz")["labels"].tolist() == [8, 3, 8, 3]


def test_evaluate_gives_the_same_result(command: Command, run: Path):
    outcome = command("mode=evaluate", f"run={run}")
    assert outcome.code == 0, outcome.err
    assert "bit-exactly the result reported after training" in outcome.out
    assert (
        "measured with feature_extractor fashion_mini, num_samples 60, real 64, training 60"
        in outcome.out
    )
    written = json.loads((run / "evaluate" / "test.json").read_text())
    assert written["measured_with"] == {
        "feature_extractor": "fashion_mini",
        "num_samples": 60,
        "real": 64,
        "training": 60,
    }
    assert (run / "evaluate" / "test_neighbors.png").is_file()


def test_the_same_command_twice_gives_the_same_bits(command: Command, run: Path):
    assert command(*SMALL, "model.conditioning=concatenation", "name=twice").code == 0
    for file in sorted(
        path.relative_to(run) for path in run.rglob("*") if path.suffix in (".png", ".gif", ".pth")
    ):
        assert (run / file).read_bytes() == (Path("outputs/twice") / file).read_bytes(), file
    assert (run / "metrics.csv").read_text() == Path("outputs/twice/metrics.csv").read_text()


def test_features_of_a_run(command: Command, run: Path):
    """Metrics of other features are not compared with those of the run."""
    outcome = command(
        "mode=evaluate", f"run={run}", "features=run", "features.folder=outputs/classifier"
    )
    assert outcome.code == 0, outcome.err
    name = f"run:{Path('outputs/classifier').absolute()}"
    assert f"measured with feature_extractor {name}, num_samples 60" in outcome.out
    assert "the run's own result" not in outcome.out
    written = json.loads((run / "evaluate" / "test.json").read_text())
    assert written["measured_with"]["feature_extractor"] == name
    assert written["metrics"]["test/fid"] > written["metrics"]["test/real_fid"]


@pytest.mark.slow
def test_other_data(command: Command, run: Path, make_folder: Callable[..., Path]):
    """A conditional GAN requires the same classes; others accept any images."""
    root = make_folder(classes=("ash", "beech"), count=20)
    outcome = command(
        "mode=evaluate", f"run={run}", "data=folder", f"data.root={root}", "data.num_workers=0"
    )
    assert "the data has classes that the network was not trained on: ash, beech" in outcome.err
    outcome = command(
        "mode=evaluate", f"run={run}", "data=images", f"data.root={root}", "data.num_workers=0"
    )
    assert "the network was trained on labels, this data has none" in outcome.err
    assert command(*SMALL, "name=any").code == 0
    for name in ("folder", "images"):
        words = (
            f"data={name}",
            f"data.root={root}",
            "data.num_workers=0",
            "data.holdout_fraction=0.2",
        )
        outcome = command("mode=evaluate", "run=outputs/any", *words)
        assert outcome.code == 0, outcome.err
        assert "real 8" in outcome.out


@pytest.mark.slow
def test_masks_and_boxes_are_ignored_by_generation(command: Command):
    counts = (
        "data=scenes",
        "data.num_images={train: 12, val: 4, test: 4}",
        "data.spec.image_size=[32,32]",
    )
    for target in ("masks", "boxes"):
        words = (
            *SMALL,
            *counts,
            "data.samples_per_class=null",
            "task.num_samples=8",
            "augment=center_crop",
            "data.batch_size=4",
        )
        outcome = command(
            *words, f"data.spec.target_type={target}", f"name={target}", "logger=none"
        )
        assert outcome.code == 0, outcome.err
    one, other = (
        Path(f"outputs/{target}/images/test_real.png").read_bytes() for target in ("masks", "boxes")
    )
    assert one == other


@pytest.mark.slow
def test_samples_need_no_features(command: Command, run: Path):
    """The classifier that extracted features may no longer exist."""
    words = (*SMALL, "trainer.max_epochs=1", "trainer.limit_train_batches=2", "logger=none")
    assert command(*words, "features=run", "features.folder=outputs/classifier", "name=x").code == 0
    shutil.rmtree("outputs/classifier")
    outcome = command("mode=predict", "run=outputs/x", "mode.num_samples=2")
    assert outcome.code == 0, outcome.err
    outcome = command("mode=evaluate", "run=outputs/x")
    assert "outputs/classifier: there is no such folder" in outcome.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("task=generate model=resnet18", "model=resnet18 is a backbone, but task=generate requires a generator with "
         "a discriminator: type model=dcgan head=none"),
        ("task=generate head=unet", "model=dcgan needs no head: type head=none"),
        ("model=dcgan", "model=dcgan is for images alone, but task=classify learns from labels: type another "
         "model=, or task=generate"),
        ("head=none", "head=none is for images alone, but task=classify learns from labels: type head=linear, "
         "or task=generate"),
        ("task=generate features=none", "features=none: type another one: the metrics require features"),
        ("task=generate features=run features.folder=outputs/made", "outputs/made: type the folder of a finished run "
         "of task=classify"),
        ("task=generate features=run features.folder=outputs/none", "features.folder=outputs/none: there is no such folder"),
        ("task=generate features=inception features.weights=none.pth", "features.weights=none.pth: type the path of a file that exists"),
        ("task=generate data.spec.image_size=[28,28]", "data.spec.image_size=[28,28]: type [32,32]: dcgan"),
        ("mode=predict run=outputs/made mode.num_samples=0", "mode.num_samples=0: type a whole number from 1 to 1000000 or null"),
        ("mode=predict run=outputs/made mode.class_names=[hat]", "mode.class_names=[hat]: type a list of t-shirt/top, trouser"),
        ("mode=predict run=outputs/made mode.tta=flip", "mode.tta, mode.tiles and mode.cam are for images to predict, not to generate"),
        ("mode=predict run=outputs/made source=outputs", "source=outputs: this is not a latents.npz written by mode=predict"),
        ("mode=predict run=outputs/made source=x mode.num_samples=3", "the file of source= determines mode.num_samples and mode.class_names"),
        ("task=generate trainer=cpu trainer.compile=true debug=fast", "trainer.compile=true is not possible for adversarial networks: type false"),
        ("task=generate trainer.precision=64-true", "trainer.precision=64-true: type 32-true, 16-mixed or bf16-mixed"),
        ("mode=predict run=outputs/made mode.class_names=3", "mode.class_names=3: type a list, each text, or null"),
        ("mode=predict run=outputs/classifier mode.num_samples=3 source=x", "mode.num_samples and mode.class_names are for tasks that gener"),
        ("mode=evaluate run=outputs/made mode.tta=flip", "mode.tta=flip: type null: this task cannot average predictions"),
        ("mode=predict task=generate model=dcgan head=none", "mode=predict requires a trained generator: type run="),
    ],
)  # fmt: skip
def test_incompatible_words_are_refused(command: Command, run: Path, words: str, text: str):
    outcome = command(*words.split(" "))
    assert outcome.code == 1
    assert text in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        (
            {"latents": np.zeros((3, 7))},
            "the latents have shape [3, 7], but the network requires [num_samples,100]",
        ),
        ({"latents": np.zeros((3, 100))}, "there is not a label from 0 to 9 for each image"),
        (
            {"latents": np.zeros((3, 100)), "labels": np.array([0, 1, 10])},
            "there is not a label from 0 to 9",
        ),
        ({"other": np.zeros(3)}, "this is not a latents.npz written by mode=predict"),
    ],
)
def test_latents_of_another_shape_are_refused(command: Command, run: Path, arrays: dict, text: str):
    np.savez("latents.npz", **arrays)
    outcome = command("mode=predict", f"run={run}", "source=latents.npz")
    assert outcome.code == 1
    assert text in outcome.err


@pytest.mark.slow
def test_folders_of_unlabeled_images(
    command: Command, make_folder: Callable[..., Path], tmp_path: Path
):
    """With and without class folders, in color, with unreadable files."""
    root = make_folder(classes=("ash", "beech"), count=14)
    (root / "ash" / "003.png").write_bytes(b"is not an image")
    shutil.copytree(root / "ash", tmp_path / "flat")
    size = (
        "data.spec.image_size=[64,64]",
        "data.num_workers=0",
        "data.on_error=skip",
        "data.holdout_fraction=0.25",
    )
    words = (
        *SMALL,
        *size,
        "data.batch_size=4",
        "task.num_samples=8",
        "logger=none",
        "data.samples_per_class=null",
    )
    for name, data in {
        "folder": f"data.root={root}",
        "images": f"data.root={tmp_path / 'flat'}",
    }.items():
        outcome = command(*words, f"data={name}", data, f"name={name}")
        assert outcome.code == 0, outcome.err
        result = json.loads(Path(f"outputs/{name}/result.json").read_text())
        assert result["measured_with"]["feature_extractor"] == "fashion_mini"
        assert "1 unreadable files were skipped" in outcome.out
        assert Image.open(f"outputs/{name}/samples/epoch=002.png").size == (8 * 66 + 2, 2 * 66 + 2)
    outcome = command("task=generate", "data=folder", f"data.root={tmp_path / 'flat'}", "name=x")
    assert "for images without classes, type data=images" in outcome.err


def test_nan_losses_end_the_run(command: Command):
    outcome = command(*SMALL, "optimizer.lr=1e30", "logger=none", "name=x")
    assert outcome.code == 1
    assert re.search(
        r"error: at step \d+ the loss is not finite: (generator|discriminator)_loss nan",
        outcome.err,
    )
    assert Run(Path("outputs/x")).state == "failed"


@pytest.mark.slow
def test_failures_of_gan_training_are_reported(command: Command):
    words = (
        *SMALL,
        "logger=none",
        "callbacks.gan_monitor.min_diversity=100.0",
        "trainer.limit_test_batches=1",
    )
    outcome = command(*words, "name=warned")
    assert outcome.code == 0
    (line,) = re.findall("warning: (.*)", outcome.out)
    assert re.match(
        r"epoch 2: the samples look alike, with [\d.]+ of the diversity of real images", line
    )
    outcome = command(
        *words,
        "callbacks.gan_monitor.action=stop",
        "callbacks.gan_monitor.patience=1",
        "name=stopped",
    )
    assert outcome.code == 1
    assert "error: epoch 1: the samples look alike" in outcome.err
    assert (
        "To continue anyway, type callbacks.gan_monitor.action=warn and another name="
        in outcome.err
    )
    assert Run(Path("outputs/stopped")).state == "failed"
