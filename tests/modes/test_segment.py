"""task=segment on the command line: custom masks, errors, prediction of any size."""

import csv
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

from tests.builders import FAST_ANY_MODEL, Outcome
from vision_lab.cli.main import main
from vision_lab.data.bundled.scenes import Scenes
from vision_lab.modes.predict import output_stems
from vision_lab.run_folders.folder import Run

Command = Callable[..., Outcome]


def drawn(root: Path, count: int = 24, *, images: str = "images", masks: str = "masks") -> Path:
    """Bright discs on dark ground, masks of 0 and 255."""
    random = np.random.default_rng(0)
    for number in range(count):
        rows, columns = np.mgrid[:40, :48]
        disc = (rows - random.integers(10, 30)) ** 2 + (columns - random.integers(10, 38)) ** 2 < 80
        image = np.where(disc[..., None], 200, 60) + random.integers(-20, 20, size=(40, 48, 3))
        for name, values in ((images, image), (masks, 255 * disc)):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(root / name / f"{number:02d}.png")
    return root


def own(root: Path) -> tuple[str, ...]:
    return (
        "task=segment",
        "data=masks",
        f"data.root={root}",
        "data.spec.class_names=[ground,disc]",
        "data.class_values=[0,255]",
        "data.spec.image_size=[32,32]",
        "data.num_workers=0",
        "model=unet",
        "model.network.base_channels=4",
        "trainer=cpu",
        "logger=none",
        "callbacks.progress_bar=null",
    )


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with discs/ and a trained run."""
    folder = tmp_path_factory.mktemp("discs")
    with chdir(folder):
        words = own(drawn(folder / "discs"))
        settings = ("trainer.max_epochs=8", "trainer.check_val_every_n_epoch=4")
        assert main([*words, *settings, "name=discs", "data.batch_size=4"]) == 0
    return folder


@pytest.fixture
def trained(command: Command, discs: Path, tmp_path: Path) -> Run:
    shutil.copytree(discs, tmp_path, dirs_exist_ok=True)
    return Run(tmp_path / "outputs" / "discs")


def test_discs_are_segmented_and_evaluated_again(command: Command, trained: Run):
    result = trained.result
    assert result is not None
    assert set(result["metrics"]) == {"test/miou", "test/dice", "test/pixel_accuracy", "test/loss"}
    assert result["metrics"]["test/miou"] > 0.8
    assert set(result["per_class"]) == {"ground", "disc"}
    assert sum(found["pixels"] for found in result["per_class"].values()) == 2 * 32 * 32
    assert result["flops"] > 0
    outcome = command("mode=evaluate", f"run={trained}")
    assert "bit-exactly the result reported after training" in outcome.out
    for column in ("class", "iou", "dice", "accuracy", "pixels"):
        assert column in outcome.out
    names = {path.name for path in (trained.folder / "evaluate").iterdir()}
    assert {"test.json", "test_confusion.png", "test_iou.png", "test_worst.png"} <= names
    flipped = command("mode=evaluate", f"run={trained}", "mode.tta=flip")
    assert flipped.code == 0, flipped.err
    both = json.loads((trained.folder / "evaluate" / "test.json").read_text())["metrics"]
    assert both["test/loss"] != result["metrics"]["test/loss"]
    assert both["test/miou"] == pytest.approx(result["metrics"]["test/miou"], abs=0.1)
    assert (
        "mode.tta=turn: type flip or null"
        in command("mode=evaluate", f"run={trained}", "mode.tta=turn").err
    )


def test_predictions_of_any_size(command: Command, trained: Run, tmp_path: Path):
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    image = Image.open(tmp_path / "discs" / "images" / "00.png")
    image.resize((130, 97)).save(source / "a.png")
    image.resize((20, 31)).save(source / "below" / "a.jpg")
    image.save(source / "below" / "a.png")
    outcome = command("mode=predict", f"run={trained}", f"source={source}")
    assert outcome.code == 0, outcome.err
    assert "contact_sheet.png, masks/, overlays/, predictions.csv" in outcome.out
    folder = trained.folder / "predict"
    sizes = {}
    for path in (folder / "masks").rglob("*.png"):
        with Image.open(path) as mask:
            sizes[str(path.relative_to(folder / "masks"))] = mask.size
            assert json.loads(mask.text["classes"]) == ["ground", "disc"]
    assert sizes == {
        "a.png.png": (130, 97),
        "below/a.jpg.png": (20, 31),
        "below/a.png.png": (48, 40),
    }
    assert len(list((folder / "overlays").rglob("*.jpg"))) == 3
    truth = np.asarray(Image.open(tmp_path / "discs" / "masks" / "00.png")) == 255
    mask = np.asarray(Image.open(folder / "masks" / "below" / "a.png.png"))
    assert (mask == truth).mean() > 0.9
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [
        str(source / name) for name in ("a.png", "below/a.jpg", "below/a.png")
    ]
    assert float(rows[2]["fraction_disc"]) == pytest.approx((mask == 1).mean())
    assert float(rows[2]["fraction_disc"]) + float(rows[2]["fraction_ground"]) == pytest.approx(1)


def test_a_disk_that_is_full_ends_the_prediction(
    command: Command, trained: Run, tmp_path: Path, small_files: None
):
    """Other threads write the files; their errors end the command like those of the main one."""
    source = tmp_path / "large.png"  # of 1 kB, but its drawing takes more than 10 kB
    Image.new("L", (1500, 1500)).save(source, optimize=True)
    outcome = command("mode=predict", f"run={trained}", f"source={source}")
    assert outcome.code == 1
    assert "predict cannot be written: File too large" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (trained.folder / "predict" / "predictions.csv").exists()  # which comes after them


def test_no_two_images_share_a_name():
    paths = [Path(name) for name in ("two/a.png", "two/a.jpg", "two/a.png.tif", "two/b.bmp")]
    assert output_stems(paths) == ["a.png", "a.jpg", "a.png.tif", "b.bmp"]
    assert output_stems([Path("two/a.png"), Path("two/below/a.png")]) == ["a", "below/a"]


def test_a_cropped_image_has_no_content_size(command: Command, trained: Run, tmp_path: Path):
    """An augmentation that crops in evaluation is not applied."""
    words = ("mode=predict", f"run={trained}", f"source={tmp_path / 'discs' / 'images' / '00.png'}")
    masks = []
    for augment in ("none", "imagenet"):
        assert command(*words, f"augment={augment}").code == 0
        masks.append(np.asarray(Image.open(trained.folder / "predict" / "masks" / "00.png")))
    assert np.array_equal(*masks)


def test_a_fully_ignored_mask_among_others(command: Command, tmp_path: Path):
    root = drawn(tmp_path / "discs", count=12)
    for split, names in (("train", range(8)), ("val", range(8, 12))):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
            for number in names:
                (root / kind / f"{number:02d}.png").rename(
                    root / split / kind / f"{number:02d}.png"
                )
    Image.fromarray(np.full((40, 48), 9, dtype=np.uint8)).save(root / "val" / "masks" / "09.png")
    outcome = command(*own(root), "data.ignored_values=[9]", "debug=fast", "name=some")
    assert outcome.code == 0, outcome.err
    (root / "val" / "masks").rename(root / "val" / "mask")
    refused = command(*own(root), "data.ignored_values=[9]", "debug=fast")
    assert f"{root} has no folder masks for val, where it has only one of the two" in refused.err


def test_tiles_of_large_images(command: Command, trained: Run, tmp_path: Path):
    """An image of four others has a mask of their four masks."""
    four = [
        np.asarray(Image.open(tmp_path / "discs" / "images" / f"{number:02d}.png"))
        for number in range(4)
    ]
    large = np.concatenate([np.concatenate(four[:2], axis=1), np.concatenate(four[2:], axis=1)])
    Image.fromarray(large).save(tmp_path / "large.png")
    words = ("mode=predict", f"run={trained}", f"source={tmp_path / 'large.png'}")
    outcome = command(*words, "mode.tiles=true", "mode.tile_overlap=0.5", "mode.tta=flip")
    assert outcome.code == 0, outcome.err
    mask = np.asarray(Image.open(trained.folder / "predict" / "masks" / "large.png"))
    assert mask.shape == (80, 96)
    truth = np.concatenate(
        [
            np.concatenate(
                [
                    np.asarray(Image.open(tmp_path / "discs" / "masks" / f"{n:02d}.png"))
                    for n in pair
                ],
                axis=1,
            )
            for pair in ((0, 1), (2, 3))
        ]
    )
    assert (mask == (truth == 255)).mean() > 0.9
    assert (
        "mode.tile_overlap=1.0: type a number of 0 or more, below 1"
        in command(*words, "mode.tiles=true", "mode.tile_overlap=1.0").err
    )


def test_tiles_and_classes(command: Command):
    assert command(*FAST_ANY_MODEL, "name=labels").code == 0
    words = ("mode=predict", "run=outputs/labels", "source=a.png", "data.spec.image_size=[32,32]")
    Image.new("L", (40, 40)).save("a.png")
    refused = command(*words, "mode.tiles=true")
    assert refused.code == 1
    assert "mode.tiles=true: type false: this task does not predict pixels" in refused.err
    assert command(*words, "mode.tta=flip").code == 0


@pytest.mark.slow
def test_the_scenes_of_a_run(command: Command):
    outcome = command(
        "task=segment", "name=scenes", "data.label_set=all", "debug=fast", "trainer=cpu", "head=fcn"
    )
    assert outcome.code == 0, outcome.err
    assert "model       resnet18, head fcn" in outcome.out
    assert "scenes: 600 train, 100 val, 300 test; 11 classes, 3x96x96" in outcome.out
    assert "FLOPs per image, forward" in outcome.out
    found = {path.name for path in Path("outputs/scenes/images").iterdir()}
    kinds = ("confusion", "iou", "predictions", "worst")
    assert found == {f"{split}_{kind}.png" for split in ("val", "test") for kind in kinds}
    assert {key.split(".")[0] for key in torch.load("outputs/scenes/model.pth")} == {
        "backbone",
        "classifier",
        "aux_classifier",
    }
    data = json.loads(Path("outputs/scenes/data_fingerprint.json").read_text())
    assert data["train"]["count"] == 600
    assert "annotations" in data["train"]
    changed = command(
        "task=segment",
        "name=scenes",
        "data.label_set=all",
        "debug=fast",
        "trainer=cpu",
        "head=fcn",
        "data.seed=4",
    )
    assert "data.seed: 0 in the run, 4 now" in changed.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("task=segment", "data=fashion_mini"),
            "data=fashion_mini is for labels, but task=segment learns from masks: type data=camvid",
        ),
        (
            ("task=segment", "head=linear"),
            "head=linear is for labels, but task=segment learns from masks: type head=deeplabv3 or fcn",
        ),
        (("task=segment", "data.label_set=some"), "data.label_set=some: type grouped or all"),
        (
            (
                "task=segment",
                "model=inception_v3",
                "head=deeplabv3",
                "model.network.aux_logits=false",
            ),
            "head.output_stride=8: type null, or choose another model",
        ),
        (
            ("task=segment", "task.loss_weights.lovasz=1"),
            "task.loss_weights.lovasz: there is no such key",
        ),
        (
            ("task=segment", "head=fcn", "head.weights=coco"),
            "head.weights=coco: torchvision has no weights for fcn_resnet18",
        ),
        (
            ("task=segment", "head.weights=nothing.pth"),
            "head.weights=nothing.pth: there is no such file",
        ),
        (
            ("task=segment", "data=masks", "data.root=nowhere"),
            "data.spec.class_names is missing: type data.spec.class_names=...",
        ),
        (
            ("task=segment", "data=coco_segment", "data.root=nowhere"),
            "nowhere has no COCO annotations",
        ),
        (
            ("task=segment", "head.decoder_channels=16"),
            "head.decoder_channels=16: type a list of whole numbers of 1 or more",
        ),
        (
            ("task=segment", "head=deeplabv3", "head.atrous_rates=[]"),
            "head.atrous_rates=[]: type a list of whole numbers of 1 or more",
        ),
        (
            ("task=segment", "head=segnet", "head.convs_per_level=[a,1,1,1]"),
            "head.convs_per_level=[a,1,1,1]: type a list of whole numbers of 1 or more",
        ),
        (
            ("task=segment", "head=fcn8s", "head.fc_channels=-3"),
            "head.fc_channels=-3: type a whole number from 1 to 16384 or null",
        ),
        (
            ("task=segment", "head=fcn8s", "head.dropout=3"),
            "head.dropout=3: type a number from 0 to 1",
        ),
        (
            ("task=segment", "data.num_images.train=abc"),
            "data.num_images.train=abc: type a whole number from 1 to 1000000",
        ),
        (("task=segment", "data.seed=-1"), "data.seed=-1: type a whole number of 0 or more"),
        (
            ("task=segment", "data.spec.image_size=[8,8]"),
            "data.spec.image_size=[8,8]: type [height,width], at least 16 pixels",
        ),
        (("task=segment", "data=camvid", "data.root=."), "has no folder train: its folders are"),
        (
            ("task=segment", "data=masks", "data.root=.", "data.spec.class_names=bg"),
            "class_names=bg: type a list of names, numbers in quotes",
        ),
        (
            ("task=segment", "data=masks", "data.root=.", "data.spec.class_names=[a,a]"),
            "contains a more than once",
        ),
        (
            ("mode=predict", "source=.", "mode.num_drawn=abc"),
            "mode.num_drawn=abc: type a whole number from 0 to 1000",
        ),
        (("mode=predict", "source=.", "mode.tiles=maybe"), "mode.tiles=maybe: type true or false"),
        (
            ("mode=predict", "task=segment", "data=scenes", "source=."),
            "type run=<its folder>, or head.weights=...",
        ),
    ],
)
def test_impossible_combinations_are_refused(
    command: Command, words: tuple[str, ...], message: str
):
    Image.new("L", (40, 40)).save("a.png")
    outcome = command(*words, *(() if "mode=predict" in words else FAST_ANY_MODEL))
    assert outcome.code != 0
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_invalid_masks_stop_the_run_or_are_listed(command: Command, tmp_path: Path):
    root = drawn(tmp_path / "discs")
    Image.new("L", (10, 10)).save(root / "masks" / "03.png")
    Image.fromarray(np.full((40, 48), 7, dtype=np.uint8)).save(root / "masks" / "04.png")
    (root / "masks" / "05.png").unlink()
    words = (*own(root), "debug=fast", "data.batch_size=24", "trainer.limit_val_batches=1.0")
    stopped = command(*words)
    assert stopped.code == 1
    assert (
        f"1 of 24 images have no mask of the same name in {root / 'masks'}: {root / 'images' / '05.png'}"
        in stopped.err
    )
    (root / "images" / "05.png").rename(root / "spare.png")
    stopped = command(*words)
    assert stopped.code == 1
    assert "images cannot be read:" in stopped.err or "1 image cannot be read:" in stopped.err
    assert (
        "its mask has 10 x 10 pixels, the image 48 x 40" in stopped.err
        or "its values 7 stand for no class" in stopped.err
    )
    (root / "spare.png").rename(root / "images" / "05.png")
    skipped = command(*words, "data.on_error=skip", "name=skipped")
    assert skipped.code == 0, skipped.err
    listed = Path("outputs/skipped/unreadable.csv").read_text()
    assert (
        f'{root / "images" / "03.png"},"its mask has 10 x 10 pixels, the image 48 x 40"' in listed
    )
    assert f"{root / 'masks' / '04.png'}," in listed
    assert f"{root / 'masks' / '05.png'},there is no such file" in listed


def test_fully_ignored_masks(command: Command, tmp_path: Path):
    """Neither the loss nor a metric is NaN."""
    root = drawn(tmp_path / "discs", count=12)
    for path in (root / "masks").iterdir():
        Image.fromarray(np.full((40, 48), 9, dtype=np.uint8)).save(path)
    outcome = command(
        *own(root),
        "data.ignored_values=[9]",
        "debug=fast",
        "task.class_weights=auto",
        "name=nothing",
    )
    assert outcome.code == 0, outcome.err
    result = json.loads(Path("outputs/nothing/result.json").read_text())
    assert result["metrics"] == {
        f"test/{name}": 0.0 for name in ("dice", "loss", "miou", "pixel_accuracy")
    }
    assert result["per_class"] == {}


@pytest.mark.slow
def test_whole_network_weights_and_published_predictions(command: Command, tmp_path: Path):
    words = ("task=segment", "model=squeezenet1_1", "head=fcn", "data.num_images.test=4")
    assert command(*words, *FAST_ANY_MODEL, "name=first").code == 0
    again = command(
        *words,
        *FAST_ANY_MODEL,
        "name=second",
        "head.weights=outputs/first/model.pth",
        "optimizer.lr=0.0",
    )
    assert again.code == 0, again.err
    assert re.search(r"model\.pth: (\d+) of \1 tensors loaded\s", again.out)
    other = command(
        *words, *FAST_ANY_MODEL, "head.weights=outputs/first/model.pth", "data.label_set=all"
    )
    assert (
        "randomly initialized: classifier.4.weight, classifier.4.bias, aux_classifier.4.weight"
        in other.out
    )
    Image.fromarray(
        Scenes(split="test", num_images=1, image_size=(96, 96), label_set="all", seed=0)[0][0]
        .permute(1, 2, 0)
        .numpy()
    ).save("a.png")
    published = command(
        "mode=predict",
        *words[:3],
        "data=scenes",
        "head.weights=outputs/first/model.pth",
        "source=a.png",
        "augment=none",
    )
    assert published.code == 0, published.err
    assert re.search(r"weights: model\.pth: (\d+) of \1 tensors loaded\s", published.out)
