"""Train, evaluate and predict on the command line."""

import csv
import json
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest
import torch
import torchvision.models as published
from PIL import Image

from tests.builders import FAST, Outcome, make_shades, write_bomb
from vision_lab.cli.main import main
from vision_lab.models.architectures.cifar_resnet import CifarResNet
from vision_lab.run_folders.folder import Run

Command = Callable[..., Outcome]
SMALL = (
    "data.spec.image_size=[32,32]",
    "trainer=cpu",
    "logger=none",
    "callbacks.progress_bar=null",
)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images/ and a trained run."""
    folder = tmp_path_factory.mktemp("shades")
    make_shades(folder / "images", count=30)
    words = (
        "data=folder",
        "data.root=images",
        "name=shades",
        "trainer.max_epochs=4",
        "data.batch_size=8",
    )
    with chdir(folder):
        assert main([*words, *SMALL, "data.num_workers=0", "augment=flip"]) == 0
    return folder


@pytest.fixture
def trained(command: Command, learned: Path, tmp_path: Path) -> Run:
    """A copy of that run and its images."""
    shutil.copytree(learned, tmp_path, dirs_exist_ok=True)
    return Run(tmp_path / "outputs" / "shades")


def test_shades_are_classified_and_evaluated_again(command: Command, trained: Run):
    result = trained.result
    assert result is not None
    assert result["metrics"]["test/accuracy"] > 0.8
    assert result["per_class"]["ash"]["samples"] == 3
    outcome = command("mode=evaluate", f"run={trained.folder}")
    assert outcome.code == 0, outcome.err
    again = json.loads((trained.folder / "evaluate" / "test.json").read_text())
    assert again["metrics"] == result["metrics"]
    assert "bit-exactly the result reported after training" in outcome.out
    assert (trained.folder / "evaluate" / "test_confusion.png").is_file()
    assert command("mode=evaluate", f"run={trained.folder}", "mode.split=train").code == 0
    train = json.loads((trained.folder / "evaluate" / "train.json").read_text())
    assert sum(each["samples"] for each in train["per_class"].values()) == 72
    assert set(train["metrics"]) == {
        f"train/{name}" for name in ("accuracy", "f1", "loss", "calibration_error")
    }


def test_a_change_of_conf_or_of_options_does_not_change_what_a_run_means(
    command: Command, trained: Run
):
    config = trained.folder / "config.yaml"
    text = config.read_text()
    assert "depth: 20" in text
    assert command("mode=evaluate", f"run={trained.folder}", "data.batch_size=3").code == 0
    again = json.loads((trained.folder / "evaluate" / "test.json").read_text())
    assert again["metrics"]["test/accuracy"] == trained.result["metrics"]["test/accuracy"]


def test_other_datasets_are_mapped_by_class_names(
    command: Command, trained: Run, make_folder: Callable[..., Path]
):
    other = make_folder("other", classes=("beech", "ash"), count=4)
    # "beech" is darkest there, and "ash" next: the network, which looks at shades, is wrong about both
    words = (
        "mode=evaluate",
        f"run={trained.folder}",
        "data=folder",
        f"data.root={other}",
        "mode.split=train",
    )
    outcome = command(*words, "data.num_workers=0")
    assert outcome.code == 0, outcome.err
    result = json.loads((trained.folder / "evaluate" / "train.json").read_text())
    assert result["per_class"]["cedar"]["samples"] == 0
    assert result["metrics"]["train/accuracy"] < 0.2


def test_other_classes_are_refused(
    command: Command, trained: Run, make_folder: Callable[..., Path]
):
    other = make_folder("other", classes=("ash", "elm"), count=4)
    outcome = command("mode=evaluate", f"run={trained.folder}", "data=folder", f"data.root={other}")
    assert outcome.code == 1
    assert (
        "classes that the network was not trained on: elm; its classes are ash, beech, cedar"
        in outcome.err
    )


def test_prediction_does_not_need_the_dataset(command: Command, trained: Run, tmp_path: Path):
    shutil.move(tmp_path / "images", tmp_path / "kept")
    outcome = command(
        "mode=predict", f"run={trained.folder}", f"source={tmp_path / 'kept' / 'cedar'}"
    )
    assert outcome.code == 0, outcome.err
    with (trained.folder / "predict" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert sum(row["class"] == "cedar" for row in rows) > 25
    assert set(rows[0]) == {
        "path",
        "class",
        "confidence",
        "class_2",
        "confidence_2",
        "class_3",
        "confidence_3",
    }
    sheet = Image.open(trained.folder / "predict" / "contact_sheet.png")
    assert sheet.width > 8 * 144
    assert "... and 10 more" in outcome.out


def test_prediction_with_class_activation_maps(command: Command, trained: Run, tmp_path: Path):
    source = tmp_path / "images" / "cedar"
    words = ("mode=predict", f"run={trained.folder}", f"source={source}", "mode.num_drawn=1")
    assert command(*words).code == 0
    plain = Image.open(trained.folder / "predict" / "contact_sheet.png")
    outcome = command(*words, "mode.cam=true")
    assert outcome.code == 0, outcome.err
    assert "predict: cam/, contact_sheet.png, predictions.csv" in outcome.out
    sheet = Image.open(trained.folder / "predict" / "contact_sheet.png")
    assert sheet.width > 1.9 * plain.width
    files = sorted((trained.folder / "predict" / "cam").iterdir())
    assert [file.stem for file in files] == sorted(path.stem for path in source.iterdir())
    image = Image.open(files[0])
    assert image.size == (64, 32)


def test_class_activation_maps_are_for_classification(command: Command, tmp_path: Path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    words = ("mode=predict", f"source={tmp_path / 'a.png'}", "mode.cam=true")
    assert command("name=v", "task=segment", "debug=fast", "trainer=cpu").code == 0
    outcome = command(*words, "run=outputs/v")
    assert outcome.code != 0
    assert "mode.cam=true: type false: it is for task=classify" in outcome.err


def test_unreadable_images_in_prediction(command: Command, trained: Run, tmp_path: Path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    shutil.copy(tmp_path / "images" / "ash" / "000.png", folder / "a.png")
    (folder / "b.jpg").write_text("is not an image")
    words = ("mode=predict", f"run={trained.folder}", f"source={folder}")
    stopped = command(*words)
    assert stopped.code == 1
    assert f"1 image cannot be read:\n  {folder / 'b.jpg'}: it is not an image" in stopped.err
    skipped = command(*words, "data.on_error=skip")
    assert skipped.code == 0
    assert "1 unreadable files were skipped" in skipped.out
    assert str(folder / "b.jpg") in (trained.folder / "predict" / "unreadable.csv").read_text()


def test_an_evaluation_needs_an_image_that_can_be_read(
    command: Command, trained: Run, tmp_path: Path
):
    for path in (tmp_path / "images").rglob("*.png"):
        path.write_bytes(b"")
    outcome = command("mode=evaluate", f"run={trained.folder}", "data.on_error=skip")
    assert outcome.code == 1
    assert "no image of the test split can be read: replace the files, or type" in outcome.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("mode=predict",), "mode=predict requires images: type source="),
        (
            ("mode=predict", "source=nothing/here"),
            "source=nothing/here: there is no such file or folder, and no match",
        ),
        (("mode=predict", "source=."), "source=.: this folder contains no images"),
        (("mode=evaluate",), "mode=evaluate requires a run: type run="),
        (("mode=evaluate", "run=nowhere"), "run=nowhere: there is no such folder"),
    ],
)
def test_missing_values_are_reported(command: Command, words: tuple[str, ...], text: str):
    outcome = command(*words)
    assert outcome.code != 0
    assert text in outcome.err
    assert "Traceback" not in outcome.err


def test_predicting_with_untrained_weights_is_refused(command: Command, tmp_path: Path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    outcome = command("mode=predict", "source=a.png")
    assert "mode=predict requires a trained network: type run=" in outcome.err
    torch.save(published.squeezenet1_1().state_dict(), tmp_path / "w.pth")
    words = ("mode=predict", "source=a.png", "model=squeezenet1_1", "model.weights=w.pth")
    refused = command(*words, "data=fashion_mini")
    assert refused.code == 1
    assert (
        "predictions would be random: they do not fit the 10 classes of data=fashion_mini"
        in refused.err
    )
    outcome = command(*words)  # without a run, published classes
    assert outcome.code == 0, outcome.err
    assert "weights: w.pth: 52 of 52 tensors loaded" in outcome.out


def test_model_pth_is_a_plain_state_dict_with_published_keys(command: Command):
    assert command("name=bare", *FAST).code == 0
    state = torch.load("outputs/bare/model.pth", weights_only=True)
    network = CifarResNet(depth=8)
    network.conv1 = torch.nn.Conv2d(1, 16, 3, padding=1, bias=False)
    network.load_state_dict(state)
    for name in ("best", "last"):
        checkpoint = torch.load(f"outputs/bare/checkpoints/{name}.ckpt", weights_only=True)
        assert set(checkpoint["state_dict"]) == {f"network.{key}" for key in state}


def test_an_unfinished_run_cannot_be_evaluated(command: Command):
    assert command("name=bare", *FAST).code == 0
    Path("outputs/bare/model.pth").unlink()
    outcome = command("mode=evaluate", "run=outputs/bare")
    assert outcome.code == 1
    assert "has no model.pth: the run is finished; repeat its command" in outcome.err


def test_fine_tuning_from_a_run(command: Command, trained: Run, make_folder: Callable[..., Path]):
    """The weights of a run are loaded like any file; only the classification layer is new."""
    other = make_folder("two", classes=("ash", "elm"), count=20)
    words = ("data=folder", f"data.root={other}", "name=tuned", f"model.weights={trained.weights}")
    outcome = command(*words, *SMALL, "debug=fast", "model.freeze=backbone")
    assert outcome.code == 0, outcome.err
    assert "randomly initialized: fc.weight, fc.bias" in " ".join(outcome.out.split())
    tuned = torch.load("outputs/tuned/model.pth", weights_only=True)
    learned = torch.load(trained.weights, weights_only=True)
    assert torch.equal(tuned["layer3.2.conv2.weight"], learned["layer3.2.conv2.weight"])
    evaluated = command("mode=evaluate", "run=outputs/tuned", "trainer.limit_test_batches=2")
    assert evaluated.code == 0, evaluated.err  # model.weights is not needed any more


def test_a_run_can_be_repeated_from_its_folder(command: Command):
    assert command("name=first", *FAST, "optimizer.lr=0.01", "seed=9").code == 0
    assert command("run=outputs/first", "name=second").code == 0
    first, second = (
        torch.load(f"outputs/{name}/model.pth", weights_only=True) for name in ("first", "second")
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert Run(Path("outputs/second")).choices["model"] == "resnet20"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("callbacks=ema",),
        ("callbacks=early_stopping", "scheduler=plateau", "trainer.max_epochs=2"),
        (
            "optimizer=sgd",
            "scheduler=poly",
            "task.class_weights=auto",
            "augment=pad_crop",
            "trainer.accumulate_grad_batches=2",
        ),
    ],
    ids=lambda words: words[0],
)
def test_other_choices_run_and_evaluate_to_the_same_result(
    command: Command, words: tuple[str, ...]
):
    assert command("name=other", *FAST, *words).code == 0
    assert command("mode=evaluate", "run=outputs/other", "trainer.limit_test_batches=2").code == 0
    stored = json.loads(Path("outputs/other/result.json").read_text())
    again = json.loads(Path("outputs/other/evaluate/test.json").read_text())
    assert again["metrics"] == stored["metrics"]


def test_differences_of_a_second_evaluation_are_reported(command: Command, trained: Run):
    weights = torch.load(trained.weights, weights_only=True)
    weights["classifier.weight" if "classifier.weight" in weights else "fc.weight"] *= 0.5
    torch.save(weights, trained.weights)
    outcome = command("mode=evaluate", f"run={trained.folder}")
    then = trained.result["metrics"]["test/loss"]
    now = json.loads((trained.folder / "evaluate" / "test.json").read_text())["metrics"][
        "test/loss"
    ]
    assert now != then
    assert (
        f"differs from the result reported after training: test/loss {then} then, {now} now"
        in outcome.out
    )
    assert "identical" not in outcome.out


def test_a_run_from_another_folder_keeps_its_config(command: Command, trained: Run, tmp_path: Path):
    """After moving the run and its data, the metrics are the same."""
    (tmp_path / "elsewhere").mkdir()
    moved = Path(shutil.move(trained.folder, tmp_path / "elsewhere" / "run"))
    images = Path(shutil.move(tmp_path / "images", tmp_path / "elsewhere" / "images"))
    outcome = command("mode=evaluate", f"run={moved}", f"data.root={images}")
    assert outcome.code == 0, outcome.err
    assert "bit-exactly the result reported after training" in outcome.out


def test_a_decompression_bomb_in_a_folder_is_named(
    command: Command, make_folder: Callable[..., Path]
):
    root = make_folder()
    write_bomb(root / "ash" / "bomb.png")
    outcome = command(
        "data=folder",
        f"data.root={root}",
        *SMALL,
        *FAST,
        "trainer.limit_train_batches=1.0",
        "name=x",
    )
    assert outcome.code == 1
    assert f"{root / 'ash' / 'bomb.png'}: it has 60000 x 60000 pixels" in outcome.err
    skipped = command(
        "data=folder",
        f"data.root={root}",
        *SMALL,
        *FAST,
        "trainer.limit_train_batches=1.0",
        "data.on_error=skip",
        "trainer.limit_val_batches=1.0",
        "trainer.limit_test_batches=1.0",
        "name=y",
    )
    assert skipped.code == 0
    assert "1 unreadable files were skipped" in skipped.out
