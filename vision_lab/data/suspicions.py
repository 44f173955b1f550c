"""What is valid in a dataset, but likely a mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

MIN_BOX_PIXELS = 2.0
"""A box with a shorter side than this is suspicious, in pixels of the original image."""

MAX_ASPECT_RATIO = 20.0
"""A box that is longer than this many times its width is suspicious."""

MAX_COVERED = 0.98
"""A box that covers more than this fraction of its image is suspicious."""

MIN_CLASS_SAMPLES = 10
"""A class with fewer training samples is suspicious."""

MAX_OVERSIZE = 4.0
"""Images are suspicious if their sides are this many times larger than what they are resized to."""

MAX_DRIFT = 0.15
"""Largest total variation distance of the class shares of two splits that is not suspicious."""

MIN_DRIFT_SAMPLES = 50
"""Number of samples of both splits from which their class shares are compared."""


def find_suspicious_boxes(
    boxes: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    class_names: Sequence[str],
) -> list[str]:
    """Describe boxes that are tiny, absurdly long, or as large as their image.

    Args:
        boxes: (n, 4), (x1, y1, x2, y2) in pixels of the original image.
        labels: (n,) labels.
        size: (height, width) of the image in pixels.
        class_names: the class names.
    """
    found = []
    for number, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True), 1):
        reason = _suspicion(box, size)
        if reason:
            corners = ", ".join(f"{value:g}" for value in box)
            found.append(f"box {number} of {class_names[label]!r} [{corners}] {reason}")
    return found


def find_suspicious_classes(splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Describe classes with few training samples, and splits with other shares of the classes.

    Args:
        splits: summary of each split, as in ``inspection_report``.
    """
    train = splits.get("train", {}).get("classes", {})
    found = []
    for name, summary in train.items():
        if summary["num_images"] < MIN_CLASS_SAMPLES:
            found.append(f"class {name!r} is in {summary['num_images']} training images only")
    for split, summary in splits.items():
        drift = _drift(train, summary["classes"])
        if split != "train" and drift > MAX_DRIFT:
            found.append(
                f"the shares of the classes in {split} differ from those in train by {drift:.0%}: "
                "are both drawn from the same images?"
            )
    return found


def find_suspicious_sizes(
    splits: Mapping[str, Mapping[str, Any]],
    image_size: tuple[int, int],
) -> list[str]:
    """Describe splits whose images are much larger than what they are resized to.

    Args:
        splits: summary of each split, as in ``inspection_report``.
        image_size: (height, width) that images are resized to.
    """
    found = []
    for split, summary in splits.items():
        median = summary["sizes"]["median"]
        if median and min(median[0] / image_size[0], median[1] / image_size[1]) > MAX_OVERSIZE:
            found.append(
                f"images of {split} have {median[1]}x{median[0]} pixels in the median, but are "
                f"resized to {image_size[1]}x{image_size[0]}: smaller files load faster"
            )
    return found


def _suspicion(box: Sequence[float], size: tuple[int, int]) -> str | None:
    width, height = box[2] - box[0], box[3] - box[1]
    shorter, longer = sorted((width, height))
    if shorter < MIN_BOX_PIXELS:
        return f"is {width:g} x {height:g} pixels: a mistaken click?"
    if longer > MAX_ASPECT_RATIO * shorter:
        return f"is {longer / shorter:.0f} times as long as wide"
    if width * height > MAX_COVERED * size[0] * size[1]:
        return "covers the whole image"
    return None


def _drift(train: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return the total variation distance of the class shares, 0 if there are few samples."""
    totals = [sum(summary["count"] for summary in classes.values()) for classes in (train, other)]
    if min(totals) < MIN_DRIFT_SAMPLES:
        return 0.0
    differences = []
    for name, summary in train.items():
        share, other_share = summary["count"] / totals[0], other[name]["count"] / totals[1]
        differences.append(abs(share - other_share))
    return sum(differences) / 2
