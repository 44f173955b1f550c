"""COCO's detection metrics over a whole split (Lin 2014), by torchmetrics and faster-coco-eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision

from vision_lab.core.batch import BoxTargets, Detections, Sample

METRIC_NAMES = {
    "map": "map",
    "map_50": "map50",
    "map_75": "map75",
    "map_small": "map_small",
    "map_medium": "map_medium",
    "map_large": "map_large",
    "mar_100": "recall",
}
"""Our names of torchmetrics' results. Recall is COCO's average recall of 100 boxes per image."""

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10).tolist()
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101).tolist()
"""COCO's thresholds in double precision. torchmetrics' defaults are rounded to single precision,
which makes a recall of 0.3 fall below the threshold of 0.3."""

DETECTION_COLUMNS = 7
"""Image index, label, x1, y1, x2, y2, score."""

GROUND_TRUTH_COLUMNS = 8
"""Image index, label, x1, y1, x2, y2, area, whether it is ignored."""

IMAGE_COLUMNS = 3
"""Image index, height, width."""

Rows = list[Tensor]


class BoxMeanAveragePrecision(Metric):
    """COCO's metrics of all images of a split, with boxes in pixels of the original images.

    ``compute`` returns ``map`` (mean over classes and IoU thresholds from 0.5 to 0.95), ``map50``,
    ``map75``, ``map_small`` (objects below 32 x 32 pixels), ``map_medium``, ``map_large`` (from
    96 x 96) and ``recall``, as far as there are such objects. It also returns ``per_class`` (K, 2),
    mAP and recall of each class, -1 for absent ones; ``curves`` (101, K), the precision at recalls
    from 0 to 1 for an IoU of 0.5; and the rows ``detections``, ``ground_truth`` and ``images``.

    The result depends neither on the order of batches nor on the rank that has seen them.

    Args:
        num_classes: number of classes K.
    """

    names = tuple(METRIC_NAMES.values())
    """Names of the scalars that ``compute`` returns."""
    detections: Rows
    ground_truth: Rows
    images: Rows

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("detections", "ground_truth", "images"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(
        self, predictions: Sequence[tuple[Sample, Detections]], targets: Sequence[BoxTargets]
    ) -> None:
        """Add a batch.

        Args:
            predictions: origin and detections of each image, in pixels of the original image.
            targets: ground truth of each image, likewise.
        """
        for (sample, detections), target in zip(predictions, targets, strict=True):
            index = sample.index
            self.detections.append(
                to_rows(index, detections.labels, detections.boxes, detections.scores)
            )
            is_ignored = target.crowd | target.difficult
            self.ground_truth.append(
                to_rows(index, target.labels, target.boxes, target.area, is_ignored)
            )
            image = torch.tensor([[index, *sample.size]], dtype=torch.float32)
            self.images.append(image.to(target.boxes))

    def compute(self) -> dict[str, Tensor]:
        """Compute the metrics of all batches so far."""
        detections = _sort_rows(self.detections, DETECTION_COLUMNS)
        ground_truth = _sort_rows(self.ground_truth, GROUND_TRUTH_COLUMNS)
        images = _sort_rows(self.images, IMAGE_COLUMNS)
        results = _evaluate(detections, ground_truth, images)
        scalars = {"map": torch.tensor(0.0), "map50": torch.tensor(0.0)}
        for coco_name, name in METRIC_NAMES.items():
            if results[coco_name] >= 0:
                scalars[name] = results[coco_name].float()
        per_class = torch.full((self.num_classes, 2), -1.0)
        curves = torch.full((len(RECALL_THRESHOLDS), self.num_classes), -1.0)
        for index, label in enumerate(results["classes"].reshape(-1).tolist()):
            for column, name in enumerate(("map_per_class", "mar_100_per_class")):
                per_class[label, column] = results[name].reshape(-1)[index]
            curves[:, label] = results["precision"][0, :, index, 0, -1]
        return {
            **scalars,
            "per_class": per_class,
            "curves": curves,
            "detections": detections,
            "ground_truth": ground_truth,
            "images": images,
        }


def to_rows(
    index: int,
    labels: Tensor,
    *columns: Tensor,
) -> Tensor:
    """Combine the columns of an image's boxes to rows.

    Args:
        index: index of the image; exact in float32 below 16 million.
        labels: (n,) labels.
        columns: further columns, (n,) or (n, k).

    Returns:
        (n, 2 + k) float32: image index, label and the further columns.
    """
    count = len(labels)
    parts = [torch.full((count, 1), index, dtype=torch.float32, device=labels.device)]
    for column in (labels, *columns):
        parts.append(column.float().view(count, *column.shape[1:] or (1,)))
    return torch.cat(parts, dim=1)


def _evaluate(
    detections: Tensor,
    ground_truth: Tensor,
    images: Tensor,
) -> Mapping[str, Tensor]:
    """Evaluate sorted rows with torchmetrics."""
    metric = MeanAveragePrecision(
        backend="faster_coco_eval",
        class_metrics=True,
        extended_summary=True,
        iou_thresholds=IOU_THRESHOLDS,
        rec_thresholds=RECALL_THRESHOLDS,
        sync_on_compute=False,  # the rows of all ranks are here already
    )
    metric.warn_on_many_detections = False
    indices = images[:, 0].contiguous()
    per_image = zip(
        _split_by_image(detections, indices), _split_by_image(ground_truth, indices), strict=True
    )
    for found, target in per_image:
        metric.update(
            [
                {
                    "labels": found[:, 1].long(),
                    "boxes": found[:, 2:6],
                    "scores": found[:, 6],
                }
            ],
            [
                {
                    "labels": target[:, 1].long(),
                    "boxes": target[:, 2:6],
                    "area": target[:, 6],
                    "iscrowd": target[:, 7].long(),
                }
            ],
        )
    return metric.compute()


def _sort_rows(rows: Rows | Tensor, num_columns: int) -> Tensor:
    """Concatenate rows on the CPU, sorted by image index.

    Args:
        rows: a list; or a single tensor, after ranks have synchronized.
        num_columns: number of columns.
    """
    tensors = rows if isinstance(rows, list) else [rows]
    table = torch.cat([torch.zeros(0, num_columns), *(tensor.cpu() for tensor in tensors)])
    return table[table[:, 0].argsort(stable=True)]


def _split_by_image(rows: Tensor, indices: Tensor) -> Sequence[Tensor]:
    """Split sorted rows by image; ``indices`` are those of the images, ascending."""
    ends = torch.searchsorted(rows[:, 0].contiguous(), indices, right=True)
    counts: list[int] = ends.diff(prepend=ends.new_zeros(1)).tolist()
    return rows.split(counts)
