"""The report of ``task=segment``: masks, errors, IoU by class, and masks as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torchvision.io import encode_jpeg

from vision_lab.core.batch import Batch
from vision_lab.core.spec import IGNORE_INDEX, DataSpec
from vision_lab.metrics.segmentation import (
    dice,
    intersection_over_union,
    segmentation_scores,
    update_confusion,
)
from vision_lab.tasks.reports.base import LazyFile, LazyImage, Report, Row
from vision_lab.tasks.reports.predictions import MaskPrediction, Prediction
from vision_lab.tasks.reports.worst_samples import WorstSamples
from vision_lab.viz.figures import bar_chart, confusion_matrix
from vision_lab.viz.images import (
    colorize_mask,
    draw_mask_errors,
    encode_palette_png,
    grid,
    overlay_mask,
    side_by_side,
    with_legend,
)

NUM_WORST_DRAWN = 16
"""Number of the images with the lowest IoU to draw."""

JPEG_QUALITY = 90


class SegmentationReport(Report):
    """Shows label masks: (N, H, W) uint8 of a batch, or of each image at the size of its file."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.worst: dict[str, WorstSamples[Tensor]] = {}

    def start(self, split: str) -> None:
        self.worst.pop(split, None)

    def collect(
        self,
        split: str,
        batch: Batch,
        predictions: Tensor,
    ) -> None:
        """Draw the images with the lowest IoU."""
        if split == "predict":
            return
        worst = self.worst.setdefault(split, WorstSamples(NUM_WORST_DRAWN))
        for image, prediction, target, sample in zip(
            batch.images, predictions, batch.targets, batch.samples, strict=True
        ):
            if (target != IGNORE_INDEX).any():
                scores = self._score(prediction, target)
                draw = partial(self._draw_comparison, image, prediction, target)
                worst.offer(1 - scores["miou"].item(), sample.index, draw)

    def draw(
        self, batch: Batch, predictions: Sequence[Tensor] | Tensor, *, with_targets: bool
    ) -> list[Tensor]:
        """Draw each image with its target, prediction and errors; without target, as an overlay."""
        if with_targets:
            rows = zip(batch.images, predictions, batch.targets, strict=True)
            return [self._draw_comparison(*row) for row in rows]
        pairs = zip(batch.images, predictions, strict=True)
        return [self._draw_prediction(image, mask) for image, mask in pairs]

    def combine(self, images: Sequence[Tensor]) -> Tensor:
        return with_legend(grid(images), self.spec.class_names)

    def figures(
        self,
        split: str,
        results: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Draw the confusion matrix, IoU per class, and the images with the lowest IoU."""
        matrix, names = results["confusion"], self.spec.class_names
        iou = {name: metrics["iou"] for name, metrics in self.per_class(results).items()}
        figures = {
            "confusion": confusion_matrix(matrix, names, unit="pixels"),
            "iou": bar_chart(iou, "IoU"),
        }
        worst = self.worst.pop(split, WorstSamples(0)).sorted_samples()
        if worst:
            figures["worst"] = self.combine(worst)
        return figures

    def per_class(self, results: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
        """Return IoU, Dice, accuracy (recall) and number of pixels of each class that occurs."""
        matrix = results["confusion"].cpu().double()
        iou, dice_scores, targets = intersection_over_union(matrix), dice(matrix), matrix.sum(dim=1)
        metrics = {}
        for k, name in enumerate(self.spec.class_names):
            if not iou[k].isnan():
                metrics[name] = {
                    "iou": iou[k].item(),
                    "dice": dice_scores[k].item(),
                    "accuracy": (matrix[k, k] / targets[k]).item() if targets[k] else 0.0,
                    "pixels": int(targets[k]),
                }
        return metrics

    def to_results(self, batch: Batch, predictions: Sequence[Tensor]) -> list[Prediction]:
        drawers = self.make_drawers(batch, predictions)
        names = tuple(self.spec.class_names)
        rows = zip(batch.samples, predictions, drawers, strict=True)
        return [MaskPrediction(sample.path, mask, draw, mask, names) for sample, mask, draw in rows]

    def table_rows(
        self,
        batch: Batch,
        predictions: Sequence[Tensor],
    ) -> list[Row]:
        """Return the path of each image and the fraction of its pixels in each class."""
        rows = super().table_rows(batch, predictions)
        for row, mask in zip(rows, predictions, strict=True):
            counts = torch.bincount(mask.flatten().int(), minlength=self.spec.num_classes)
            fractions = (counts.double() / mask.numel()).tolist()
            for name, fraction in zip(self.spec.class_names, fractions, strict=True):
                row[f"fraction_{name}"] = fraction
        return rows

    def render_predictions(
        self,
        batch: Batch,
        predictions: Sequence[Tensor],
        *,
        names: Sequence[str],
        images: Sequence[LazyImage],
    ) -> list[LazyFile]:
        """Return ``masks/<name>.png`` (labels, with a palette) and ``overlays/<name>.jpg``."""
        files: list[LazyFile] = []
        for image, prediction, name in zip(images, predictions, names, strict=True):
            mask = prediction.cpu()
            png = partial(encode_palette_png, mask, self.spec.class_names)
            files += [
                (f"masks/{name}.png", png),
                (f"overlays/{name}.jpg", partial(_render_overlay, image, mask)),
            ]
        return files

    def _score(
        self,
        prediction: Tensor,
        target: Tensor,
    ) -> dict[str, Tensor]:
        """Score a single image, without synchronizing ranks as a metric would."""
        num_classes = self.spec.num_classes
        matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=target.device)
        update_confusion(matrix, prediction, target, ignore_index=IGNORE_INDEX)
        return segmentation_scores(matrix)

    def _draw_comparison(
        self,
        image: Tensor,
        prediction: Tensor,
        target: Tensor,
    ) -> Tensor:
        scores = self._score(prediction, target)
        panels = [
            image,
            colorize_mask(target),
            colorize_mask(prediction),
            draw_mask_errors(image, prediction, target),
        ]
        caption = (
            f"image, target, prediction, errors.  Mean IoU {scores['miou']:.2f}, "
            f"{scores['pixel_accuracy']:.0%} of pixels correct"
        )
        return side_by_side(panels, caption)

    def _draw_prediction(
        self,
        image: Tensor,
        mask: Tensor,
    ) -> Tensor:
        counts = torch.bincount(mask.flatten().int(), minlength=self.spec.num_classes)
        fractions = counts / mask.numel()
        largest = fractions.topk(min(3, len(fractions))).indices
        texts = [f"{self.spec.class_names[k]} {fractions[k]:.0%}" for k in largest]
        return side_by_side([image, overlay_mask(image, mask)], ", ".join(texts))


def _render_overlay(image: LazyImage, mask: Tensor) -> bytes:
    """Draw a mask on its image, and encode it as JPEG."""
    return encode_jpeg(overlay_mask(image(), mask), quality=JPEG_QUALITY).numpy().tobytes()
