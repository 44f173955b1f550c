"""``task=detect``: what is in a picture, and where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchvision.io import encode_jpeg
from torchvision.ops import box_iou

from vision_lab.core.arguments import Fraction
from vision_lab.core.batch import Batch, BoxTargets, Detections, Sample
from vision_lab.core.files import write_file
from vision_lab.metrics.detection import BoxMeanAveragePrecision, to_rows
from vision_lab.tasks import coco_json
from vision_lab.tasks.base import SupervisedTask
from vision_lab.tasks.worst_samples import WorstSamples
from vision_lab.viz import figures, images

NUM_WORST_DRAWN = 16
"""How many of the pictures with the most mistakes are kept to be drawn."""

MATCH_IOU = 0.5
"""The overlap (IoU) from which a detection of the right class is no mistake, in pictures."""


class DetectionTask(SupervisedTask):
    """Boxes of K classes; crowds are not learnt from, and what is found in them is no mistake.

    Predictions are in pixels of the batch's pictures; measures, tables and files in those of the pictures' files.

    Args:
        shown_score: detections that are less sure are not drawn and not in the table; files for programs hold them all.
        arguments: what every task takes.
    """

    def __init__(self, *, draw_score_threshold: Fraction, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.draw_score_threshold = draw_score_threshold
        self.has_ground_truth = True
        """Whether a picture without objects is known to have none."""
        self.worst: dict[str, WorstSamples] = {}
        self.predicted: list[tuple[Tensor, Tensor]] = []
        """(detections, picture) of each picture that was predicted on, as rows of ``BoxPrecision``."""

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """The head's losses and their sum."""
        terms: dict[str, Tensor] = self.network.losses(outputs, batch.targets)  # type: ignore[operator]  # a Detector
        return {"loss": torch.stack([*terms.values()]).sum(), **terms}

    @torch.no_grad()
    def decode(self, outputs: Any) -> list[Detections]:
        """What was found in each picture of the batch, in its pixels."""
        found: list[Detections] = self.network.decode(outputs)  # type: ignore[operator]  # a Detector
        return found

    def metrics(self, split: str) -> MetricCollection:
        """COCO's; of training pictures, which are augmented, the loss alone."""
        return MetricCollection(
            {} if split == "train" else {"boxes": BoxMeanAveragePrecision(self.spec.num_classes)}
        )

    def update_metrics(
        self, scores: MetricCollection, batch: Batch, predictions: Sequence[Detections]
    ) -> None:
        """In pixels of the files."""
        truth = [
            replace(each, boxes=_boxes_to_file_pixels(each.boxes, sample))
            for each, sample in zip(batch.targets, batch.samples, strict=True)
        ]
        scores.update(_to_file_pixels(predictions, batch.samples), truth)

    def on_predict_start(self) -> None:
        self.has_ground_truth = False

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Detections] | None:
        """As every task; kept for ``documents`` too."""
        predictions = super().predict_step(batch, batch_idx)
        for sample, said in _to_file_pixels(predictions or [], batch.samples):
            picture = torch.tensor([sample.index, *sample.size], dtype=torch.float32)
            self.predicted.append(
                (to_rows(sample.index, said.labels, said.boxes, said.scores).cpu(), picture)
            )
        return predictions

    def collect_examples(self, split: str, batch: Batch, predictions: Sequence[Detections]) -> None:
        """Keep the pictures with the most mistakes, drawn."""
        worst = self.worst.setdefault(split, WorstSamples(NUM_WORST_DRAWN))
        for image, said, truth, sample in zip(
            batch.images, predictions, batch.targets, batch.samples, strict=True
        ):
            shown = self._above_threshold(said)
            wrong, missed = match_detections(shown, truth)
            drawn = partial(self._compared, _crop_content(image, sample), shown, truth)
            worst.offer(int(wrong.sum()) + int(missed.sum()), sample.index, drawn)

    def reset_examples(self, split: str) -> None:
        """Drop the pictures of the epoch before."""
        self.worst.pop(split, None)

    def draw_predictions(self, batch: Batch, predictions: Sequence[Detections]) -> list[Tensor]:
        """Each picture with its truth, and with what was found; the latter alone where nothing is known."""
        drawn = []
        for image, said, truth, sample in zip(
            batch.images, predictions, batch.targets, batch.samples, strict=True
        ):
            part, shown = _crop_content(image, sample), self._above_threshold(said)
            drawn.append(
                self._compared(part, shown, truth)
                if self.has_ground_truth
                else self._found(part, shown)
            )
        return drawn

    def figures(self, split: str) -> Mapping[str, Tensor]:
        """Precision by recall, average precision by class, and the pictures with the most mistakes."""
        came_to, names = self.results[split], self.spec.class_names
        precisions = {name: measured["map"] for name, measured in self.per_class(split).items()}
        curves = {
            name: came_to["curves"][:, k].tolist()
            for k, name in enumerate(names)
            if came_to["curves"][0, k] >= 0
        }
        drawn = {"precision_recall": figures.curves(curves, x="recall", y="precision (IoU 0.5)")}
        drawn["precision"] = figures.bars(precisions, "mAP")
        worst = self.worst.pop(split, WorstSamples(0)).pictures()
        return {**drawn, "worst": self.contact_sheet(worst)} if worst else drawn

    def per_class(self, split: str) -> dict[str, dict[str, float]]:
        """class: its mAP, recall and number of objects; those of which there is none are left out."""
        found = self.results[split]["per_class"].tolist()
        truth = self.results[split]["truth"]
        counted = torch.bincount(
            truth[truth[:, 7] == 0][:, 1].long(), minlength=self.spec.num_classes
        ).tolist()
        return {
            name: {"map": found[k][0], "recall": found[k][1], "objects": counted[k]}
            for k, name in enumerate(self.spec.class_names)
            if found[k][0] >= 0
        }

    def export(self, split: str, paths: Sequence[str]) -> Mapping[str, Any]:
        """COCO's results and, for programs that have no annotations, what they are held against."""
        names = self.spec.class_names
        if split == "predict":
            empty = torch.zeros(0, 7)
            rows = torch.cat([empty, *(rows for rows, _ in self.predicted)])
            pictures = torch.stack([picture for _, picture in self.predicted])
            return {
                "detections": coco_json.annotation_file(
                    pictures, names, coco_json.detection_results(rows), paths
                )
            }
        came_to = self.results[split]
        truth = coco_json.annotation_file(
            came_to["pictures"], names, coco_json.ground_truth_annotations(came_to["truth"]), paths
        )
        return {"detections": coco_json.detection_results(came_to["found"]), "truth": truth}

    def table_rows(
        self, batch: Batch, predictions: Sequence[Detections]
    ) -> list[dict[str, str | float]]:
        """A row for each object that is sure enough, boxes in pixels of the file; an empty one where there is none."""
        rows: list[dict[str, str | float]] = []
        for sample, said in _to_file_pixels(predictions, batch.samples):
            path, sure = sample.path or str(sample.index), self._above_threshold(said)
            places = ("left", "top", "right", "bottom")
            for label, score, box in zip(
                sure.labels.tolist(), sure.scores.tolist(), sure.boxes.tolist(), strict=True
            ):
                named = dict(zip(places, (round(value, 1) for value in box), strict=True))
                rows.append(
                    {"path": path, "class": self.spec.class_names[label], "score": score, **named}
                )
            if not len(sure):
                rows.append({"path": path, "class": "", "score": "", **dict.fromkeys(places, "")})
        return rows

    def save_predictions(
        self,
        batch: Batch,
        predictions: Sequence[Detections],
        folder: Path,
        *,
        names: Sequence[str],
        pictures: Iterable[Tensor],
    ) -> None:
        """``pictures/<name>.jpg``: the file's picture with what was found in it."""
        found = _to_file_pixels(predictions, batch.samples)
        for (_, said), name, picture in zip(found, names, pictures, strict=True):
            drawn = self._boxed(picture, self._above_threshold(said))
            write_file(
                folder, f"pictures/{name}.jpg", encode_jpeg(drawn, quality=92).numpy().tobytes()
            )

    def _above_threshold(self, said: Detections) -> Detections:
        return said[said.scores >= self.draw_score_threshold]

    def _boxed(self, image: Tensor, said: Detections, *, side: int | None = None) -> Tensor:
        named = zip(said.labels.tolist(), said.scores.tolist(), strict=True)
        texts = [f"{self.spec.class_names[label]} {score:.2f}" for label, score in named]
        return images.draw_boxes(image, said.boxes, said.labels, texts, side=side)

    def _compared(self, image: Tensor, said: Detections, truth: BoxTargets) -> Tensor:
        wrong, missed = match_detections(said, truth)
        texts = [self.spec.class_names[label] for label in truth.labels.tolist()]
        texts = [
            f"({text})" if ignored else text
            for text, ignored in zip(texts, truth.crowd | truth.difficult, strict=True)
        ]
        known = images.draw_boxes(
            image, truth.boxes, truth.labels, texts, side=images.LARGE_THUMBNAIL_SIZE
        )
        counted = int((~(truth.crowd | truth.difficult)).sum())
        caption = f"truth, found.  {counted - int(missed.sum())} of {counted} found, {int(wrong.sum())} wrong"
        return images.side_by_side(
            [known, self._boxed(image, said, side=images.LARGE_THUMBNAIL_SIZE)],
            caption,
            side=images.LARGE_THUMBNAIL_SIZE,
        )

    def _found(self, image: Tensor, said: Detections) -> Tensor:
        names = [f"{self.spec.class_names[label]}" for label in said.labels.tolist()]
        counts = [f"{names.count(name)} {name}" for name in dict.fromkeys(names)]
        return images.side_by_side(
            [self._boxed(image, said, side=images.LARGE_THUMBNAIL_SIZE)],
            ", ".join(counts) or "nothing",
            side=images.LARGE_THUMBNAIL_SIZE,
        )


def match_detections(said: Detections, truth: BoxTargets) -> tuple[Tensor, Tensor]:
    """What was said wrongly, (n,) bool, and which objects were missed, (m,) bool.

    From the surest on each detection takes, of the objects of its class that are free, the one it overlaps most. One
    that lies in a crowd's box by half is no mistake, and no crowd is missed.
    """
    ignored = truth.crowd | truth.difficult
    wrong = torch.ones(len(said), dtype=torch.bool)
    missed = ~ignored.cpu()
    if not len(said) or not len(truth):
        return wrong, missed
    overlaps = box_iou(said.boxes, truth.boxes)
    same = said.labels[:, None] == truth.labels
    overlaps = overlaps.where(same, 0.0).cpu()
    inside = _intersection_over_area(said.boxes, truth.boxes).where(same & ignored, 0.0).cpu()
    for place in said.scores.argsort(descending=True).tolist():
        best = overlaps[place].where(missed, 0.0)
        if best.max() >= MATCH_IOU:
            missed[best.argmax()] = False
            wrong[place] = False
        elif inside[place].max() >= MATCH_IOU:
            wrong[place] = False
    return wrong, missed


def _intersection_over_area(boxes: Tensor, others: Tensor) -> Tensor:
    """(n, m), the part of each box that lies in each of the others."""
    corner = torch.minimum(boxes[:, None, 2:], others[:, 2:]) - torch.maximum(
        boxes[:, None, :2], others[:, :2]
    )
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return corner.clamp(min=0).prod(dim=2) / areas.clamp(min=1e-6)[:, None]


def _to_file_pixels(
    predictions: Sequence[Detections], samples: Sequence[Sample]
) -> list[tuple[Sample, Detections]]:
    return [
        (sample, replace(said, boxes=_boxes_to_file_pixels(said.boxes, sample)))
        for said, sample in zip(predictions, samples, strict=True)
    ]


def _boxes_to_file_pixels(boxes: Tensor, sample: Sample) -> Tensor:
    """(n, 4) in pixels of the batch's picture -> in those of its file, clipped to it."""
    assert sample.content_size is not None
    (height, width), (rows, columns) = sample.size, sample.content_size
    scale = boxes.new_tensor([width / columns, height / rows])
    return torch.minimum(
        (boxes * scale.repeat(2)).clamp(min=0), boxes.new_tensor([width, height, width, height])
    )


def _crop_content(image: Tensor, sample: Sample) -> Tensor:
    """The part of a batch's picture that holds the file's."""
    assert sample.content_size is not None
    rows, columns = sample.content_size
    return image[:, :rows, :columns]
