"""Detection metrics: equal to pycocotools, for any order of images."""

import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from vision_lab.core.batch import BoxTargets, Detections, Sample
from vision_lab.metrics.detection import BoxMeanAveragePrecision
from vision_lab.tasks.reports import coco_json

CLASSES = 3

Pair = tuple[tuple[Sample, Detections], BoxTargets]


def image(index: int, found: Sequence[Sequence[float]], truth: Sequence[Sequence[float]]) -> Pair:
    """Detections: label, box, score. Ground truth: label, box, crowd."""
    rows = torch.tensor(found, dtype=torch.float32).reshape(-1, 6)
    known = torch.tensor(truth, dtype=torch.float32).reshape(-1, 6)
    area = (known[:, 3:5] - known[:, 1:3]).prod(dim=1)
    crowd = known[:, 5].bool()
    objects = BoxTargets(known[:, 1:5], known[:, 0].long(), crowd, torch.zeros_like(crowd), area)
    return (
        Sample(index, None, (200, 300)),
        Detections(rows[:, 1:5], rows[:, 0].long(), rows[:, 5]),
    ), objects


def made_set(seed: int) -> list[Pair]:
    """Crowds, empty images, images without detections, equal scores, duplicates, all three sizes."""
    random = np.random.default_rng(seed)
    pairs = []
    for index in range(24):
        truth, found = [], []
        for _ in range(random.integers(0, 7) if index % 6 else 0):
            side = random.choice([12, 40, 110], size=2) * random.uniform(0.8, 1.2, size=2)
            left, top = random.uniform(0, 300 - side[0]), random.uniform(0, 200 - side[1])
            box = np.array([left, top, left + side[0], top + side[1]])
            label = random.integers(CLASSES)
            truth.append([label, *box, random.random() < 0.2])
            for _ in range(random.integers(0, 3)):
                moved = box + random.normal(0, 0.08, size=4) * np.tile(side, 2)
                moved[2:] = np.maximum(moved[2:], moved[:2] + 2)
                predicted = label if random.random() < 0.9 else random.integers(CLASSES)
                found.append(
                    [predicted, *moved, random.integers(1, 11) / 10]
                )  # many of the same score
        for _ in range(random.integers(0, 4) if index % 5 else 0):
            left, top, width, height = random.uniform(5, 90, size=4)
            found.append(
                [
                    random.integers(CLASSES),
                    left,
                    top,
                    left + width,
                    top + height,
                    random.integers(1, 6) / 10,
                ]
            )
        found.sort(key=lambda row: -row[-1])
        pairs.append(image(index, found, truth))
    return pairs


def measured(pairs: Sequence[Pair]) -> dict[str, Tensor]:
    metric = BoxMeanAveragePrecision(CLASSES)
    for found, truth in pairs:
        metric.update([found], [truth])
    return metric.compute()


def by_coco(came_to: dict[str, Tensor], folder: Path) -> np.ndarray:
    """Evaluate exported files with pycocotools."""
    truth = coco_json.annotation_file(
        came_to["images"],
        list("abc"),
        coco_json.ground_truth_annotations(came_to["ground_truth"]),
        [],
    )
    files = {"truth": truth, "found": coco_json.detection_results(came_to["detections"])}
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    with redirect_stdout(StringIO()):
        known = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(known, known.loadRes(str(folder / "found.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("seed", range(4))
def test_metrics_equal_those_of_pycocotools(seed: int, tmp_path: Path):
    came_to = measured(made_set(seed))
    stats = by_coco(came_to, tmp_path)
    names = ["map", "map50", "map75", "map_small", "map_medium", "map_large", None, None, "recall"]
    assert came_to["ground_truth"][:, 7].sum() > 3  # crowds
    assert 0.1 < stats[0] < 0.9
    for name, stat in zip(names, stats, strict=False):
        if name:
            assert came_to[name].item() == pytest.approx(stat, abs=1e-6), name


def test_counts_equal_those_by_hand():
    """Class 0: two objects with scores 0.9 and 0.5, a false positive at 0.7. Class 1: one object, missed."""
    truth = [[0, 0, 0, 100, 100, 0], [0, 150, 50, 250, 150, 0], [1, 10, 120, 60, 170, 0]]
    found = [[0, 0, 0, 100, 100, 0.9], [0, 200, 0, 240, 30, 0.7], [0, 150, 50, 250, 150, 0.5]]
    came_to = measured([image(0, found, truth)])
    # Precision is 1 up to a recall of a half (51 of 101 points), then 2 of 3.
    class_0 = (51 + 50 * 2 / 3) / 101
    assert came_to["map50"].item() == pytest.approx(class_0 / 2, abs=1e-6)
    assert came_to["per_class"][:, 0].tolist() == pytest.approx([class_0, 0.0, -1.0], abs=1e-6)
    assert came_to["per_class"][:, 1].tolist() == pytest.approx([1.0, 0.0, -1.0], abs=1e-6)
    assert came_to["recall"].item() == pytest.approx(0.5)
    assert came_to["curves"][[0, 50, 51, 100], 0].tolist() == pytest.approx([1, 1, 2 / 3, 2 / 3])
    assert "map_small" not in came_to  # there is no small object


def test_detections_in_a_crowd_are_not_errors():
    truth = [[0, 0, 0, 100, 100, 0], [0, 120, 20, 280, 180, 1]]
    found = [[0, 130, 30, 180, 90, 0.9], [0, 200, 100, 260, 170, 0.8], [0, 0, 0, 100, 100, 0.5]]
    assert measured([image(0, found, truth)])["map"].item() == pytest.approx(1.0)
    alone = [[0, 0, 0, 100, 100, 0], [0, 120, 20, 280, 180, 0]]
    assert measured([image(0, found, alone)])["map"].item() < 0.3


def test_the_order_of_images_does_not_matter():
    pairs = made_set(1)
    one, other = measured(pairs), measured(pairs[::-1])
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_metrics_without_detections_and_objects_are_zero():
    nothing = measured([image(0, [], []), image(1, [], [])])
    assert nothing["map"] == nothing["map50"] == 0
    assert (nothing["per_class"] == -1).all()
    assert measured([image(0, [], [[1, 0, 0, 50, 50, 0]])])["map"] == 0
