"""Boxes as COCO's files have them (https://cocodataset.org/#format-data): numbers from 1, boxes by corner and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


def detection_results(found: Tensor) -> list[dict[str, Any]]:
    """What programs that score detections read.

    Args:
        found: (n, 7): the picture's place from 0, label from 0, left, top, right and bottom in pixels, score.
    """
    return [
        {
            "image_id": int(image) + 1,
            "category_id": int(label) + 1,
            "bbox": _by_size(*box),
            "score": score,
        }
        for image, label, *box, score in found.tolist()
    ]


def annotation_file(
    pictures: Tensor,
    names: Sequence[str],
    annotations: Sequence[Mapping[str, Any]],
    paths: Sequence[str],
) -> dict[str, Any]:
    """A whole annotation file.

    Args:
        pictures: (p, 3), sorted: place from 0, height and width in pixels.
        names: of the classes.
        annotations: of the pictures.
        paths: of the pictures by their place; empty where they have none.
    """
    images = []
    for place, height, width in pictures.int().tolist():
        name = paths[place] if paths else str(place)
        images.append({"id": place + 1, "file_name": name, "height": height, "width": width})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(names)]
    numbered = [{"id": number, **each} for number, each in enumerate(annotations, start=1)]
    return {"images": images, "categories": categories, "annotations": numbered}


def ground_truth_annotations(truth: Tensor) -> list[dict[str, Any]]:
    """What is known of pictures, as annotations.

    Args:
        truth: (n, 8): place, label, left, top, right, bottom, area in pixels, whether it does not count (a crowd).
    """
    return [
        {
            "image_id": int(image) + 1,
            "category_id": int(label) + 1,
            "bbox": _by_size(*box),
            "area": area,
            "iscrowd": int(ignored),
        }
        for image, label, *box, area, ignored in truth.tolist()
    ]


def _by_size(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right - left, bottom - top]
