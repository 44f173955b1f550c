"""Detections and ground truth in COCO's JSON format (https://cocodataset.org/#format-data).

IDs start at 1, and boxes are [x, y, width, height].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


def detection_results(detections: Tensor) -> list[dict[str, Any]]:
    """Convert detections to COCO's result format.

    Args:
        detections: (n, 7): image index, label, x1, y1, x2, y2 in pixels, score.
    """
    results = []
    for image, label, x1, y1, x2, y2, score in detections.tolist():
        result = {
            "image_id": int(image) + 1,
            "category_id": int(label) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        results.append(result)
    return results


def annotation_file(
    images: Tensor,
    class_names: Sequence[str],
    annotations: Sequence[Mapping[str, Any]],
    paths: Sequence[str],
) -> dict[str, Any]:
    """Build the content of an annotation file.

    Args:
        images: (n, 3), sorted: image index, height and width in pixels.
        class_names: the class names.
        annotations: annotations of the images.
        paths: paths of the images by index; empty if they have none.
    """
    image_entries = []
    for index, height, width in images.int().tolist():
        name = paths[index] if paths else str(index)
        image_entries.append(
            {
                "id": index + 1,
                "file_name": name,
                "height": height,
                "width": width,
            }
        )
    categories = [{"id": label, "name": name} for label, name in enumerate(class_names, start=1)]
    numbered = [{"id": id_, **entry} for id_, entry in enumerate(annotations, start=1)]
    return {
        "images": image_entries,
        "categories": categories,
        "annotations": numbered,
    }


def ground_truth_annotations(ground_truth: Tensor) -> list[dict[str, Any]]:
    """Convert ground truth to COCO's annotations.

    Args:
        ground_truth: (n, 8): image index, label, x1, y1, x2, y2 in pixels, area, whether the object
            is ignored (a crowd).
    """
    annotations = []
    for image, label, x1, y1, x2, y2, area, is_ignored in ground_truth.tolist():
        annotation = {
            "image_id": int(image) + 1,
            "category_id": int(label) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": area,
            "iscrowd": int(is_ignored),
        }
        annotations.append(annotation)
    return annotations
