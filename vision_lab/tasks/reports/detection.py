"""The report of ``task=detect``: boxes, precision-recall curves, and files in COCO's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchvision.io import encode_jpeg

from vision_lab.core.arguments import Fraction
from vision_lab.core.batch import Batch, BoxTargets, Detections, Sample
from vision_lab.core.matching import match_detections
from vision_lab.core.spec import DataSpec
from vision_lab.metrics.box_scaling import in_file_pixels
from vision_lab.metrics.detection import DETECTION_COLUMNS, to_rows
from vision_lab.metrics.detection_confusion import count_confusions
from vision_lab.tasks.reports import coco_json
from vision_lab.tasks.reports.base import LazyFile, LazyImage, Report, Row
from vision_lab.tasks.reports.predictions import BoxPrediction, DetectedObject, Prediction
from vision_lab.tasks.reports.worst_samples import WorstSamples
from vision_lab.viz.figures import bar_chart, confusion_matrix, line_chart
from vision_lab.viz.images import (
    LARGE_THUMBNAIL_SIZE,
    draw_boxes,
    grid,
    side_by_side,
    with_legend,
)

NUM_WORST_DRAWN = 16
"""Number of the images with the most mistakes to draw."""

BOX_COLUMNS = ("x1", "y1", "x2", "y2")

JPEG_QUALITY = 92


class DetectionReport(Report):
    """Shows detections, which are in pixels of the batch images; in files, of the original images.

    Args:
        spec: spec of the data.
        draw_score_threshold: detections with a lower score are neither drawn nor in the table;
            files for other programs contain all of them.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        draw_score_threshold: Fraction,
    ) -> None:
        super().__init__(spec)
        self.draw_score_threshold = draw_score_threshold
        self.worst: dict[str, WorstSamples[Tensor]] = {}
        self.predicted: list[tuple[Tensor, Tensor]] = []
        """Detections and size of each predicted image, as rows of ``BoxMeanAveragePrecision``."""

    def start(self, split: str) -> None:
        self.worst.pop(split, None)

    def collect(
        self,
        split: str,
        batch: Batch,
        predictions: Sequence[Detections],
    ) -> None:
        """Draw the images with the most mistakes; keep predictions for ``export``."""
        if split == "predict":
            self._keep_predictions(batch, predictions)
            return
        worst = self.worst.setdefault(split, WorstSamples(NUM_WORST_DRAWN))
        for image, detections, target, sample in zip(
            batch.images, predictions, batch.targets, batch.samples, strict=True
        ):
            shown = self._above_threshold(detections)
            wrong, missed = match_detections(shown, target)
            draw = partial(self._draw_comparison, _crop_content(image, sample), shown, target)
            worst.offer(int(wrong.sum()) + int(missed.sum()), sample.index, draw)

    def draw(
        self, batch: Batch, predictions: Sequence[Detections], *, with_targets: bool
    ) -> list[Tensor]:
        """Draw each image with its ground truth, if known, and with the detections."""
        drawn = []
        for image, detections, target, sample in zip(
            batch.images, predictions, batch.targets, batch.samples, strict=True
        ):
            content, shown = _crop_content(image, sample), self._above_threshold(detections)
            if with_targets:
                drawn.append(self._draw_comparison(content, shown, target))
            else:
                drawn.append(self._draw_prediction(content, shown))
        return drawn

    def combine(self, images: Sequence[Tensor]) -> Tensor:
        """Combine drawn images, with the colors of the classes below them."""
        return with_legend(grid(images), self.spec.class_names, first_color=1)

    def figures(
        self,
        split: str,
        results: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Draw curves, AP by class, the confusion matrix, and the images with the most mistakes."""
        precision = results["curves"]
        recall = torch.linspace(0, 1, len(precision)).tolist()
        curves = {}
        for k, name in enumerate(self.spec.class_names):
            if precision[0, k] >= 0:
                curves[name] = (recall, precision[:, k].tolist())
        average = {name: metrics["map"] for name, metrics in self.per_class(results).items()}
        confusions = count_confusions(
            results["detections"],
            results["ground_truth"],
            num_classes=self.spec.num_classes,
            score_threshold=self.draw_score_threshold,
        )
        names = [*self.spec.class_names, "background"]
        figures = {
            "confusion": confusion_matrix(confusions, names, unit="boxes"),
            "precision_recall": line_chart(curves, x="recall", y="precision (IoU 0.5)"),
            "precision": bar_chart(average, "mAP"),
        }
        worst = self.worst.pop(split, WorstSamples(0)).sorted_samples()
        if worst:
            figures["worst"] = self.combine(worst)
        return figures

    def per_class(self, results: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
        """Return mAP, recall and number of objects by name of each class that has objects."""
        scores = results["per_class"].tolist()
        ground_truth = results["ground_truth"]
        is_counted = ground_truth[:, 7] == 0
        labels = ground_truth[is_counted][:, 1].long()
        counts = torch.bincount(labels, minlength=self.spec.num_classes).tolist()
        metrics = {}
        for k, name in enumerate(self.spec.class_names):
            average_precision, recall = scores[k]
            if average_precision >= 0:
                metrics[name] = {
                    "map": average_precision,
                    "recall": recall,
                    "objects": counts[k],
                }
        return metrics

    def export(
        self, split: str, results: Mapping[str, Tensor], paths: Sequence[str]
    ) -> dict[str, Any]:
        """Return detections and ground truth in COCO's format.

        Predictions are returned as an annotation file, because there is none for these images.
        """
        names = self.spec.class_names
        if split == "predict":
            empty = torch.zeros(0, DETECTION_COLUMNS)
            rows = torch.cat([empty, *(rows for rows, _ in self.predicted)])
            images = torch.stack([image for _, image in self.predicted])
            detections = coco_json.detection_results(rows)
            return {"detections": coco_json.annotation_file(images, names, detections, paths)}
        annotations = coco_json.ground_truth_annotations(results["ground_truth"])
        return {
            "detections": coco_json.detection_results(results["detections"]),
            "ground_truth": coco_json.annotation_file(results["images"], names, annotations, paths),
        }

    def to_results(self, batch: Batch, predictions: Sequence[Detections]) -> list[Prediction]:
        drawers = self.make_drawers(batch, predictions)
        in_file = in_file_pixels(predictions, batch.samples)
        results: list[Prediction] = []
        for (sample, detections), draw in zip(in_file, drawers, strict=True):
            shown = self._above_threshold(detections)
            columns = (shown.labels.tolist(), shown.scores.tolist(), shown.boxes.tolist())
            objects = []
            for label, score, box in zip(*columns, strict=True):
                objects.append(DetectedObject(self.spec.class_names[label], score, tuple(box)))
            results.append(BoxPrediction(sample.path, detections, draw, tuple(objects)))
        return results

    def table_rows(
        self,
        batch: Batch,
        predictions: Sequence[Detections],
    ) -> list[Row]:
        """Return a row for each detection above the threshold, or an empty one for the image."""
        rows: list[Row] = []
        for sample, detections in in_file_pixels(predictions, batch.samples):
            path, shown = sample.path or str(sample.index), self._above_threshold(detections)
            for label, score, box in zip(
                shown.labels.tolist(), shown.scores.tolist(), shown.boxes.tolist(), strict=True
            ):
                row: Row = {
                    "path": path,
                    "class": self.spec.class_names[label],
                    "score": score,
                }
                for column, value in zip(BOX_COLUMNS, box, strict=True):
                    row[column] = round(value, 1)
                rows.append(row)
            if not len(shown):
                empty = dict.fromkeys(BOX_COLUMNS, "")
                rows.append(
                    {
                        "path": path,
                        "class": "",
                        "score": "",
                        **empty,
                    }
                )
        return rows

    def render_predictions(
        self,
        batch: Batch,
        predictions: Sequence[Detections],
        *,
        names: Sequence[str],
        images: Sequence[LazyImage],
    ) -> list[LazyFile]:
        """Return ``images/<name>.jpg``: the original image with the detections."""
        files: list[LazyFile] = []
        in_files = in_file_pixels(predictions, batch.samples)
        for (_, detections), name, image in zip(in_files, names, images, strict=True):
            render = partial(self._render_boxes, image, self._above_threshold(detections))
            files.append((f"images/{name}.jpg", render))
        return files

    def _render_boxes(self, image: LazyImage, detections: Detections) -> bytes:
        drawn = self._draw_boxes(image(), detections)
        return encode_jpeg(drawn, quality=JPEG_QUALITY).numpy().tobytes()

    def _keep_predictions(
        self,
        batch: Batch,
        predictions: Sequence[Detections],
    ) -> None:
        for sample, found in in_file_pixels(predictions, batch.samples):
            rows = to_rows(sample.index, found.labels, found.boxes, found.scores).cpu()
            image = torch.tensor([sample.index, *sample.size], dtype=torch.float32)
            self.predicted.append((rows, image))

    def _above_threshold(self, detections: Detections) -> Detections:
        return detections[detections.scores >= self.draw_score_threshold]

    def _draw_boxes(
        self, image: Tensor, detections: Detections, *, side: int | None = None
    ) -> Tensor:
        texts = []
        for label, score in zip(
            detections.labels.tolist(), detections.scores.tolist(), strict=True
        ):
            texts.append(f"{self.spec.class_names[label]} {score:.2f}")
        return draw_boxes(image, detections.boxes, detections.labels, texts, side=side)

    def _draw_comparison(
        self,
        image: Tensor,
        detections: Detections,
        target: BoxTargets,
    ) -> Tensor:
        wrong, missed = match_detections(detections, target)
        is_ignored = target.crowd | target.difficult
        texts = []
        for label, ignored in zip(target.labels.tolist(), is_ignored.tolist(), strict=True):
            name = self.spec.class_names[label]
            texts.append(f"({name})" if ignored else name)
        side = LARGE_THUMBNAIL_SIZE
        ground_truth = draw_boxes(image, target.boxes, target.labels, texts, side=side)
        count = int((~is_ignored).sum())
        caption = (
            f"ground truth, detections.  {count - int(missed.sum())} of {count} found, "
            f"{int(wrong.sum())} wrong"
        )
        detected = self._draw_boxes(image, detections, side=side)
        return side_by_side([ground_truth, detected], caption, side=side)

    def _draw_prediction(
        self,
        image: Tensor,
        detections: Detections,
    ) -> Tensor:
        names = [self.spec.class_names[label] for label in detections.labels.tolist()]
        counts = [f"{names.count(name)} {name}" for name in dict.fromkeys(names)]
        caption = ", ".join(counts) or "nothing detected"
        drawn = self._draw_boxes(image, detections, side=LARGE_THUMBNAIL_SIZE)
        return side_by_side([drawn], caption, side=LARGE_THUMBNAIL_SIZE)


def _crop_content(image: Tensor, sample: Sample) -> Tensor:
    """Crop a batch image to the region that shows the original image."""
    assert sample.content_size is not None
    height, width = sample.content_size
    return image[:, :height, :width]
