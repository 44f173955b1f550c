"""COCO's measures of boxes over a whole split (Lin 2014), by torchmetrics and faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence

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
"""torchmetrics' name: ours. Recall is COCO's: of at most 100 boxes a picture, the mean over ten overlaps."""

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10).tolist()
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101).tolist()
"""COCO's, in double precision as there: torchmetrics' own are rounded to single, and a recall of 0.3 is below them."""

Rows = list[Tensor]


class BoxMeanAveragePrecision(Metric):
    """How well boxes are found, over all pictures of a split together, in the pixels of their files.

    ``map`` (the mean over classes, and over overlaps from 0.5 to 0.95), ``map50``, ``map75``, ``map_small`` (below
    32 x 32 pixels), ``map_medium``, ``map_large`` (from 96 x 96), ``recall``; those of which there is no object are
    left out. Besides these: ``per_class`` (K, 2), mAP and recall of each class, -1 where there is none of it;
    ``curves`` (101, K), precision at recall 0 to 1 for an overlap of 0.5; and all rows that they come from.

    The order in which pictures are seen does not matter, nor which process sees them.
    """

    names = tuple(METRIC_NAMES.values())
    """Of the scalars that it comes to."""
    found: Rows
    truth: Rows
    pictures: Rows

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        for name in ("found", "truth", "pictures"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(
        self, found: Sequence[tuple[Sample, Detections]], truth: Sequence[BoxTargets]
    ) -> None:
        """Take the pictures of a batch, boxes in pixels of their files."""
        for (sample, said), known in zip(found, truth, strict=True):
            self.found.append(to_rows(sample.index, said.labels, said.boxes, said.scores))
            ignored = known.crowd | known.difficult
            self.truth.append(to_rows(sample.index, known.labels, known.boxes, known.area, ignored))
            self.pictures.append(
                torch.tensor([[sample.index, *sample.size]], dtype=torch.float32).to(known.boxes)
            )

    def compute(self) -> dict[str, Tensor]:
        """The measures so far."""
        found, truth, pictures = (
            _sorted_rows(self.found, 7),
            _sorted_rows(self.truth, 8),
            _sorted_rows(self.pictures, 3),
        )
        places = pictures[:, 0].contiguous()
        measure = MeanAveragePrecision(
            backend="faster_coco_eval",
            class_metrics=True,
            extended_summary=True,
            iou_thresholds=IOU_THRESHOLDS,
            rec_thresholds=RECALL_THRESHOLDS,
            sync_on_compute=False,  # the rows are those of all processes by now
        )
        measure.warn_on_many_detections = False
        for said, known in zip(_by_picture(found, places), _by_picture(truth, places), strict=True):
            measure.update(
                [{"labels": said[:, 1].long(), "boxes": said[:, 2:6], "scores": said[:, 6]}],
                [
                    {
                        "labels": known[:, 1].long(),
                        "boxes": known[:, 2:6],
                        "area": known[:, 6],
                        "iscrowd": known[:, 7].long(),
                    }
                ],
            )
        came_to = measure.compute()
        scalars = {
            ours: came_to[theirs].float()
            for theirs, ours in METRIC_NAMES.items()
            if came_to[theirs] >= 0
        }
        by_class = torch.full((self.classes, 2), -1.0)
        curves = torch.full((101, self.classes), -1.0)
        for place, label in enumerate(came_to["classes"].reshape(-1).tolist()):
            by_class[label] = torch.stack(
                [came_to[f"{name}_per_class"].reshape(-1)[place] for name in ("map", "mar_100")]
            )
            curves[:, label] = came_to["precision"][0, :, place, 0, -1]
        scalars = {"map": torch.tensor(0.0), "map50": torch.tensor(0.0), **scalars}
        return {
            **scalars,
            "per_class": by_class,
            "curves": curves,
            "found": found,
            "truth": truth,
            "pictures": pictures,
        }


def to_rows(index: int, labels: Tensor, *columns: Tensor) -> Tensor:
    """(n, ...) float32: the picture's place, then all columns side by side; a place is exact below 16 million."""
    place = torch.full((len(labels), 1), index, dtype=torch.float32, device=labels.device)
    parts = [
        column.float().view(len(labels), *column.shape[1:] or (1,)) for column in (labels, *columns)
    ]
    return torch.cat([place, *parts], dim=1)


def _sorted_rows(rows: Rows | Tensor, width: int) -> Tensor:
    """All rows on the CPU, sorted by picture: of a list, or of one tensor after processes have exchanged theirs."""
    listed = rows if isinstance(rows, list) else [rows]
    table = torch.cat([torch.zeros(0, width), *(each.cpu() for each in listed)])
    return table[table[:, 0].argsort(stable=True)]


def _by_picture(rows: Tensor, places: Tensor) -> Sequence[Tensor]:
    """Rows that are sorted, for each of the pictures, whose places rise."""
    ends = torch.searchsorted(rows[:, 0].contiguous(), places, right=True)
    counts: list[int] = ends.diff(prepend=ends.new_zeros(1)).tolist()
    return rows.split(counts)
