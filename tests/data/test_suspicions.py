"""What is valid in a dataset, but likely a mistake."""

from typing import Any

import pytest
import torch

from vision_lab.data.suspicions import (
    find_suspicious_boxes,
    find_suspicious_classes,
    find_suspicious_sizes,
)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([10, 10, 11, 40], "is 1 x 30 pixels: a mistaken click?"),
        ([10, 10, 90, 13], "is 27 times as long as wide"),
        ([0, 0, 100, 80], "covers the whole image"),
        ([10, 10, 12, 12], None),
        ([10, 10, 50, 13], None),
        ([0, 0, 90, 80], None),
    ],
)
def test_boxes(box: list[float], reason: str | None):
    boxes = torch.tensor([[5.0, 5, 40, 40], box])
    found = find_suspicious_boxes(boxes, torch.tensor([0, 1]), (80, 100), ["ash", "beech"])
    if reason is None:
        assert found == []
        return
    corners = ", ".join(map(str, box))
    assert found == [f"box 2 of 'beech' [{corners}] {reason}"]


def split(*counts: int, median: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    classes = {
        name: {"count": count, "num_images": count}
        for name, count in zip(("ash", "beech"), counts, strict=True)
    }
    return {"classes": classes, "sizes": {"median": median}}


def test_rare_classes_and_other_shares():
    splits = {"train": split(90, 9), "val": split(30, 30), "test": split(46, 4)}
    assert find_suspicious_classes(splits) == [
        "class 'beech' is in 9 training images only",
        "the shares of the classes in val differ from those in train by 41%: are both drawn from "
        "the same images?",
    ]
    assert find_suspicious_classes({"train": split(20, 20), "val": split(1, 9)}) == []


def test_images_that_are_larger_than_needed():
    splits = {"train": split(1, 1, median=(1080, 1920)), "val": split(1, 1, median=(250, 300))}
    (found,) = find_suspicious_sizes(splits, (64, 64))
    assert found.startswith("images of train have 1920x1080 pixels in the median, but are resized")
