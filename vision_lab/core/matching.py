"""Which detections of an image are correct."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

from vision_lab.core.batch import BoxTargets, Detections

MATCH_IOU = 0.5
"""IoU from which a detection is of an object."""


def match_detections(detections: Detections, target: BoxTargets) -> tuple[Tensor, Tensor]:
    """Match detections of an image with its ground truth.

    In descending order of score, each detection is matched with the unmatched object of its class
    with the highest IoU. A detection that lies in a crowd by half is not wrong, and crowds are not
    missed.

    Args:
        detections: n detections.
        target: m objects.

    Returns:
        Which detections are wrong, (n,) bool, and which objects are missed, (m,) bool.
    """
    is_ignored = target.crowd | target.difficult
    wrong = torch.ones(len(detections), dtype=torch.bool)
    missed = ~is_ignored.cpu()
    if not len(detections) or not len(target):
        return wrong, missed
    same_class = detections.labels[:, None] == target.labels
    iou = box_iou(detections.boxes, target.boxes).where(same_class, 0.0).cpu()
    in_crowd = intersection_over_area(detections.boxes, target.boxes)
    in_crowd = in_crowd.where(same_class & is_ignored, 0.0).cpu()
    for row in detections.scores.argsort(descending=True).tolist():
        candidates = iou[row].where(missed, 0.0)
        if candidates.max() >= MATCH_IOU:
            missed[candidates.argmax()] = False
            wrong[row] = False
        elif in_crowd[row].max() >= MATCH_IOU:
            wrong[row] = False
    return wrong, missed


def intersection_over_area(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the fraction of each box that lies in each of the others.

    Args:
        boxes: (n, 4) as (x1, y1, x2, y2).
        others: (m, 4), likewise.

    Returns:
        (n, m) float in [0, 1].
    """
    bottom_right = torch.minimum(boxes[:, None, 2:], others[:, 2:])
    top_left = torch.maximum(boxes[:, None, :2], others[:, :2])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return intersection / areas.clamp(min=1e-6)[:, None]
