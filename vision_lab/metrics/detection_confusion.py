"""Confusion matrix of detections, with background as a further class."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

from vision_lab.core.matching import MATCH_IOU, intersection_over_area


def count_confusions(
    detections: Tensor,
    ground_truth: Tensor,
    *,
    num_classes: int,
    score_threshold: float,
) -> Tensor:
    """Count objects by their class and that of their detection.

    In descending order of score, each detection is matched with the unmatched object with the
    highest IoU, of whatever class; objects of its own class come first. Objects without a detection
    are counted as background, and so are detections without an object, but for those of which half
    lies in an ignored object, such as a crowd.

    Args:
        detections: rows of ``BoxMeanAveragePrecision``.
        ground_truth: likewise.
        num_classes: number of classes K.
        score_threshold: detections with a lower score are not counted.

    Returns:
        (K + 1, K + 1) int64 counts, target by prediction; background is last.
    """
    matrix = torch.zeros(num_classes + 1, num_classes + 1, dtype=torch.int64)
    shown = detections[detections[:, 6] >= score_threshold]
    indices = torch.cat([shown[:, 0], ground_truth[:, 0]]).unique().tolist()
    for index in indices:
        found = shown[shown[:, 0] == index]
        objects = ground_truth[ground_truth[:, 0] == index]
        for target, predicted in _match(found, objects, background=num_classes):
            matrix[target, predicted] += 1
    return matrix


def _match(detections: Tensor, objects: Tensor, *, background: int) -> list[tuple[int, int]]:
    """List the class of each object and detection of an image, in pairs."""
    labels, predicted = objects[:, 1].long(), detections[:, 1].long()
    is_ignored = objects[:, 7].bool()
    iou = box_iou(detections[:, 2:6], objects[:, 2:6])
    in_ignored = intersection_over_area(detections[:, 2:6], objects[is_ignored, 2:6])
    pairs = []
    is_free = ~is_ignored
    for row in detections[:, 6].argsort(descending=True, stable=True).tolist():
        label = int(predicted[row])
        candidates = (iou[row] >= MATCH_IOU) & is_free
        same_class = candidates & (labels == label)
        if candidates.any():
            allowed = same_class if same_class.any() else candidates
            column = int(iou[row].where(allowed, -1.0).argmax())
            is_free[column] = False
            pairs.append((int(labels[column]), label))
        elif not (in_ignored[row] >= MATCH_IOU).any():
            pairs.append((background, label))
    pairs += [(int(label), background) for label in labels[is_free]]
    return pairs
