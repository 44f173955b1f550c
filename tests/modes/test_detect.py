"""task=detect on the command line: training, evaluation, prediction, exported files."""

import csv
import json
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import FAST, Outcome
from tests.data import annotation_files
from vision_lab.cli.main import main
from vision_lab.run_folders.folder import Run

Command = Callable[..., Outcome]

SMALL = (
    "data.spec.image_size=[64,64]",
    "data.num_workers=0",
    "trainer=cpu",
    "logger=none",
    "callbacks.progress_bar=null",
)


def squares(root: Path, count: int = 30) -> Path:
    """Write images of 96 x 48 pixels with a bright square each, in YOLO format."""
    random = np.random.default_rng(0)
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        left, top, kind = random.integers(0, 64), random.integers(0, 16), number % 2
        pixels = random.integers(20, 60, (48, 96, 3), dtype=np.uint8)
        pixels[top : top + 30, left : left + 30, kind] = 220
        Image.fromarray(pixels).save(root / "images" / f"{number:02d}.png")
        (root / "labels" / f"{number:02d}.txt").write_text(
            f"{kind} {(left + 15) / 96} {(top + 15) / 48} {30 / 96} {30 / 48}\n"
        )
    (root / "data.yaml").write_text("names: [red, green]\n")
    return root


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with squares/ and a trained run."""
    folder = tmp_path_factory.mktemp("squares")
    with chdir(folder):
        words = (
            "task=detect",
            "data=yolo_txt",
            f"data.root={squares(folder / 'squares')}",
            "model=resnet20",
            "model.network.depth=8",
            *SMALL,
        )
        settings = (
            "name=squares",
            "trainer.max_epochs=12",
            "trainer.check_val_every_n_epoch=6",
            "data.batch_size=4",
            "head.channels=32",
            "head.num_convs=1",
        )
        assert main([*words, *settings]) == 0
    return folder


@pytest.fixture
def trained(command: Command, learned: Path, tmp_path: Path) -> Run:
    shutil.copytree(learned, tmp_path, dirs_exist_ok=True)
    return Run(tmp_path / "outputs" / "squares")


def test_squares_are_detected_and_evaluated_again(command: Command, trained: Run):
    result = trained.result
    assert result is not None
    measures = {"loss", "map", "map50", "map75", "recall", "map_small"}
    assert set(result["metrics"]) == {f"test/{name}" for name in measures}
    assert result["metrics"]["test/map50"] > 0.8
    assert set(result["per_class"]) <= {"red", "green"}
    assert sum(found["objects"] for found in result["per_class"].values()) == 3
    assert {path.name for path in (trained.folder / "images").iterdir()} >= {
        "test_predictions.png",
        "test_precision_recall.png",
        "test_precision.png",
        "test_worst.png",
    }
    outcome = command("mode=evaluate", f"run={trained}")
    assert outcome.code == 0, outcome.err
    assert "bit-exactly the result reported after training" in outcome.out


def test_pycocotools_agrees_on_the_exported_files(command: Command, trained: Run):
    from contextlib import redirect_stdout
    from io import StringIO

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    assert command("mode=evaluate", f"run={trained}", "mode.split=train").code == 0
    folder = trained.folder / "evaluate"
    truth = json.loads((folder / "train_ground_truth.json").read_text())
    assert [category["name"] for category in truth["categories"]] == ["red", "green"]
    assert len(truth["images"]) == len(truth["annotations"]) == 24
    assert all(Path(image["file_name"]).is_file() for image in truth["images"])
    assert {(image["width"], image["height"]) for image in truth["images"]} == {(96, 48)}
    assert all(
        each["bbox"][2:] == pytest.approx([30, 30], abs=1e-3) for each in truth["annotations"]
    )
    with redirect_stdout(StringIO()):
        known = COCO(str(folder / "train_ground_truth.json"))
        evaluation = COCOeval(known, known.loadRes(str(folder / "train_detections.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ours = json.loads((folder / "train.json").read_text())["metrics"]
    assert ours["train/map"] == pytest.approx(evaluation.stats[0], abs=1e-6)
    assert ours["train/map50"] == pytest.approx(evaluation.stats[1], abs=1e-6)


def test_predictions_are_images_a_table_and_coco_json(
    command: Command, trained: Run, tmp_path: Path
):
    annotation_files.image(tmp_path / "squares" / "images" / "zz_noise.png", (50, 50))
    outcome = command("mode=predict", f"run={trained}", f"source={tmp_path / 'squares' / 'images'}")
    assert outcome.code == 0, outcome.err
    folder = trained.folder / "predict"
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "class", "score", "x1", "y1", "x2", "y2"]
    assert len({row["path"] for row in rows}) == 31
    first = next(row for row in rows if row["path"].endswith("00.png"))
    number, x, y, *_ = map(float, (tmp_path / "squares/labels/00.txt").read_text().split())
    assert first["class"] == ["red", "green"][int(number)]
    assert (float(first["x1"]) + float(first["x2"])) / 2 == pytest.approx(96 * x, abs=4)
    assert (float(first["y1"]) + float(first["y2"])) / 2 == pytest.approx(48 * y, abs=4)
    assert Image.open(folder / "images" / "zz_noise.jpg").size == (
        240,
        240,
    )  # small ones are enlarged
    document = json.loads((folder / "detections.json").read_text())
    assert len(document["images"]) == 31
    assert {"image_id", "category_id", "bbox", "score", "id"} == set(document["annotations"][0])
    assert len(document["annotations"]) >= len(rows) - 1
    assert Image.open(folder / "contact_sheet.png").width > 500


def test_unsupported_detector_options_are_refused(command: Command, trained: Run, tmp_path: Path):
    outcome = command(
        "mode=predict", f"run={trained}", f"source={tmp_path / 'squares'}", "mode.tiles=true"
    )
    assert outcome.code == 1
    assert "mode.tiles=true: type false: this task does not predict pixels" in outcome.err
    outcome = command("mode=evaluate", f"run={trained}", "mode.tta=flip")
    assert outcome.code == 1
    assert "mode.tta=flip: type null: this task cannot average predictions" in outcome.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["data=fashion_mini"],
            "data=fashion_mini is for labels, but task=detect learns from boxes: type data=coco",
        ),
        (
            ["head=unet"],
            "head=unet is for masks, but task=detect learns from boxes: type head=fast_rcnn or faster_rcnn",
        ),
        (
            ["task=segment", "augment=mosaic"],
            "augment.train contains a transform of boxes, but the data has masks",
        ),
        (["augment=imagenet"], "augment.eval must be empty for boxes"),
        (
            ["task.report.draw_score_threshold=-1"],
            "task.report.draw_score_threshold=-1: type a number from 0 to 1",
        ),
        (["head.weights=coco"], "head.weights=coco: torchvision has no weights for yolo_resnet18"),
        (["data=coco", "data.root=nowhere"], "nowhere has no COCO annotations"),
    ],
)
def test_incompatible_data_is_refused_with_advice(words: list[str], says: str, command: Command):
    outcome = command("task=detect", *words)
    assert outcome.code == 1
    assert says in outcome.err
    assert "Traceback" not in outcome.err


def test_scenes_work_for_two_tasks_only(command: Command):
    outcome = command("task=classify", "data=scenes")
    assert outcome.code == 1
    assert "data=scenes is for masks, but task=classify learns from labels" in outcome.err


@pytest.mark.parametrize("kind", annotation_files.FORMATS)
def test_invalid_boxes_are_listed_in_the_run(kind: str, command: Command, tmp_path: Path):
    boxes = {
        **annotation_files.BOXES,
        "b": [("beech", (0, 0, 60, 60)), ("ash", (50, 20, 90, 40)), ("oak", (1, 1, 9, 9))],
    }
    root = annotation_files.FORMATS[kind](tmp_path / "data", boxes)
    words = (
        "task=detect",
        f"data={kind}",
        f"data.root={root}",
        *SMALL,
        *FAST,
        "model=resnet20",
        "head.channels=16",
    )
    named = ("data.spec.class_names=[ash,beech,cedar]",)
    outcome = command(*words, *named, "name=x", "augment=mosaic")
    assert outcome.code == 0, outcome.err
    assert (
        "2 annotations are invalid: boxes were clipped or dropped, or images left out; see"
        in outcome.out
    )
    with (tmp_path / "outputs/x/annotation_issues.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in rows] == ["b.png", "b.png"]
    assert [row["problem"].rpartition(": ")[2] for row in rows] == ["clipped", "dropped"]
    refused = command(*words, *named, "name=y", "data.on_error=raise")
    assert refused.code == 1
    assert "2 annotations are invalid" in refused.err


LEARNING = {
    "yolo": ("head.channels=64",),
    "ssd": ("head.channels=128", "head.score_threshold=0.1"),
    "retinanet": ("head.channels=64", "head.anchor_scale=3", "head.norm=group"),
    "fcos": ("head.channels=64",),
    "faster_rcnn": (
        "head.channels=64",
        "head.anchor_scale=4",
        "head.rpn_post_nms_top_n=100",
        "head.box_batch_size_per_image=64",
    ),
}
"""head: what makes it small, and its boxes as large as the objects of small images."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "head",
    [
        head if head == "yolo" else pytest.param(head, marks=pytest.mark.exhaustive)
        for head in LEARNING
    ],
)
def test_eight_scenes_are_overfitted(head: str, command: Command, tmp_path: Path):
    words = (
        "task=detect",
        f"head={head}",
        *LEARNING[head],
        "augment=none",
        "data.batch_size=4",
        "trainer.max_epochs=50",
        "data.num_images.train=8",
        "data.num_images.val=1",
        "data.num_images.test=1",
        "trainer.check_val_every_n_epoch=50",
        "callbacks.resume_checkpoint=null",
    )
    outcome = command(*words, *SMALL, "name=x")
    assert outcome.code == 0, outcome.err
    assert command("mode=evaluate", "run=outputs/x", "mode.split=train").code == 0
    metrics = json.loads((tmp_path / "outputs/x/evaluate/train.json").read_text())["metrics"]
    assert metrics["train/map50"] > 0.9
