"""mode=check finds every injected problem, in every format, and none in valid data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.builders import Outcome
from tests.data import annotation_files

Command = Callable[..., Outcome]


def boxes_of(kind: str) -> Callable[[Path], list[str]]:
    def make(root: Path) -> list[str]:
        annotation_files.FORMATS[kind](root)
        return [f"data={kind}", f"data.root={root}", "data.spec.image_size=[64,64]"]

    return make


def folder(root: Path) -> list[str]:
    for name in ("ash", "beech"):
        for number in range(4):
            annotation_files.image(root / name / f"{number}.png", (40, 40), seed=len(name))
    return ["data=folder", f"data.root={root}"]


def masks(root: Path) -> list[str]:
    for number in range(6):
        annotation_files.image(root / "images" / f"{number}.png", (40, 30))
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.eye(30, 40, dtype=np.uint8)).save(root / "masks" / f"{number}.png")
    return ["data=masks", f"data.root={root}", "data.spec.class_names=[ground,line]"]


CLEAN: dict[str, Callable[[Path], list[str]]] = {
    "coco": boxes_of("coco"),
    "voc_detect": boxes_of("voc_detect"),
    "yolo_txt": boxes_of("yolo_txt"),
    "folder": folder,
    "masks": masks,
}


def checked(command: Command, tmp_path: Path, words: list[str]) -> tuple[Outcome, dict[str, Any]]:
    outcome = command("mode=check", "data.num_workers=0", *words)
    (report,) = (tmp_path / "outputs" / "check").glob("*/report.json")
    return outcome, json.loads(report.read_text())


@pytest.mark.parametrize("kind", CLEAN)
def test_a_dataset_without_problems_passes(kind: str, command: Command, tmp_path: Path):
    outcome, report = checked(command, tmp_path, CLEAN[kind](tmp_path / "data"))
    assert outcome.code == 0, outcome.err
    assert "no problems found" in outcome.out
    assert report["num_problems"] == 0
    assert set(report["splits"]) == {"train", "val", "test"}
    assert sum(split["num_images"] for split in report["splits"].values()) == {
        "folder": 8,
        "masks": 6,
    }.get(kind, 4)
    (sheet,) = (tmp_path / "outputs" / "check").glob("*/contact_sheet.png")
    assert Image.open(sheet).width > 200


def replaced(path: Path, text: str, by: str) -> None:
    before = path.read_text()
    assert text in before
    path.write_text(before.replace(text, by, 1))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def twice(root: Path) -> None:
    """One image with two names and different annotations, in one split."""
    shutil.copy(root / "JPEGImages/a.png", root / "JPEGImages/e.png")
    text = (
        (root / "Annotations/a.xml").read_text().replace("a.png", "e.png").replace("cedar", "ash")
    )
    (root / "Annotations/e.xml").write_text(text)


COCO = "annotations/instances_train.json"

FAULTS: list[tuple[str, str, Callable[[Path], object], str]] = [
    ("coco", "an image that is cut short", lambda r: cut(r / "train/a.png"), "a.png"),
    (
        "coco",
        "an image that is not there",
        lambda r: (r / "train/b.png").unlink(),
        "there is no such file",
    ),
    (
        "coco",
        "a box with reversed corners",
        lambda r: replaced(r / COCO, "[8, 4, 32, 26]", "[8, 4, -3, 26]"),
        "inverted",
    ),
    (
        "coco",
        "a box that is no number",
        lambda r: replaced(r / COCO, "[8, 4, 32, 26]", "[8, NaN, 32, 26]"),
        "is not finite",
    ),
    (
        "coco",
        "a category that is not listed",
        lambda r: replaced(r / COCO, '"category_id": 10', '"category_id": 7'),
        "has a class that is not",
    ),
    (
        "voc_detect",
        "an empty file",
        lambda r: (r / "JPEGImages/c.png").write_bytes(b""),
        "the file is empty",
    ),
    (
        "voc_detect",
        "a box outside of its image",
        lambda r: replaced(r / "Annotations/a.xml", "<xmin>9<", "<xmin>90<"),
        "inverted",
    ),
    (
        "voc_detect",
        "XML that is cut short",
        lambda r: cut(r / "Annotations/d.xml"),
        "cannot be read",
    ),
    ("voc_detect", "one image twice", twice, "a.png"),
    (
        "yolo_txt",
        "a box beyond its image",
        lambda r: replaced(r / "labels/a.txt", "0.3 ", "0.95 "),
        "extends beyond",
    ),
    (
        "yolo_txt",
        "a class without a name",
        lambda r: replaced(r / "labels/b.txt", "1 ", "8 "),
        "class 8",
    ),
    (
        "yolo_txt",
        "words among the numbers",
        lambda r: replaced(r / "labels/b.txt", "1 ", "one "),
        "does not consist of numbers",
    ),
    (
        "yolo_txt",
        "a text that is no image",
        lambda r: (r / "images/d.png").write_text("hello"),
        "is not an image",
    ),
    ("folder", "an image that is cut short", lambda r: cut(r / "ash/0.png"), "0.png"),
    (
        "folder",
        "one image in two classes",
        lambda r: shutil.copy(r / "ash/0.png", r / "beech/0.png"),
        "beech/0.png",
    ),
    (
        "folder",
        "a text that is no image",
        lambda r: (r / "ash/1.png").write_text("hello"),
        "is not an image",
    ),
    (
        "masks",
        "a mask of another size",
        lambda r: annotation_files.image(r / "masks/0.png", (20, 20)),
        "0.png",
    ),
    (
        "masks",
        "a value of no class",
        lambda r: Image.new("L", (40, 30), 7).save(r / "masks/1.png"),
        "stand for no class",
    ),
    ("masks", "an image without a mask", lambda r: (r / "masks/2.png").unlink(), "2.png"),
    ("masks", "a mask that is cut short", lambda r: cut(r / "masks/3.png"), "3.png"),
]


def test_the_expected_number_of_problems_is_injected():
    assert len(FAULTS) == 20
    assert {kind for kind, *_ in FAULTS} == set(CLEAN)


@pytest.mark.parametrize(
    ("kind", "what", "plant", "says"), FAULTS, ids=[f"{f[0]}: {f[1]}" for f in FAULTS]
)
def test_an_injected_problem_is_found_and_named(
    kind: str,
    what: str,
    plant: Callable[[Path], object],
    says: str,
    command: Command,
    tmp_path: Path,
):
    words = CLEAN[kind](tmp_path / "data")
    plant(tmp_path / "data")
    outcome, report = checked(command, tmp_path, words)
    assert outcome.code == 1
    assert report["num_problems"] >= 1
    kinds = (
        "unreadable",
        "annotation_issues",
        "duplicates_across_splits",
        "conflicting_duplicates",
    )
    assert says in json.dumps([report[kind] for kind in kinds])
    assert says in outcome.out
    assert "problems: all are listed in" in outcome.err


def test_information_that_is_not_a_problem_is_reported(command: Command, tmp_path: Path):
    words = CLEAN["coco"](tmp_path / "data")
    _, report = checked(
        command, tmp_path, [*words, "mode.small_object_pixels=30", "mode.num_drawn=0"]
    )
    splits = report["splits"].values()
    assert sum(len(split["unlabeled"]) for split in splits) == 1  # c has no objects
    assert sum(sum(split["small_objects"].values()) for split in splits) == 5
    counts = [
        split["classes"][name]["count"] for name in annotation_files.NAMES for split in splits
    ]
    assert sum(counts) == 6
    assert not list((tmp_path / "outputs" / "check").glob("*/contact_sheet.png"))


def test_values_out_of_range_are_refused(command: Command):
    outcome = command("mode=check", "data=scenes", "mode.small_object_pixels=-1")
    assert outcome.code == 1
    assert "mode.small_object_pixels=-1: type a whole number of 0 or more" in outcome.err


def test_tiny_boxes_are_suspicious_but_no_problem(command: Command, tmp_path: Path):
    root = tmp_path / "data"
    words = CLEAN["voc_detect"](root)
    file = root / "Annotations" / "a.xml"
    text = file.read_text()
    corners = "".join(
        f"<{k}>{v}</{k}>"
        for k, v in zip(("xmin", "ymin", "xmax", "ymax"), (9, 9, 9, 20), strict=True)
    )
    name = "<name>ash</name>" if "<name>ash</name>" in text else "<name>cedar</name>"
    added = f"<object>{name}<bndbox>{corners}</bndbox></object>"
    file.write_text(text.replace("</annotation>", f"{added}</annotation>"))
    outcome, report = checked(command, tmp_path, words)
    assert outcome.code == 0, outcome.err
    assert "no problems found, but" in outcome.out
    (tiny,) = [entry for entry in report["suspicious_samples"] if "click" in entry["reason"]]
    assert tiny["path"].endswith("a.png")
    assert "is 1 x 12 pixels: a mistaken click?" in tiny["reason"]
    assert f"{tiny['path']}: {tiny['reason']}" in outcome.out
    assert any("training images only" in text for text in report["suspicious_splits"])
    (page,) = (tmp_path / "outputs" / "check").glob("*/report.html")
    assert "a mistaken click?" in page.read_text()
