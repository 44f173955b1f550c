"""The report of ``task=classify``: confusion matrix, mistakes, and the most likely classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torchvision.io import encode_png

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.batch import Batch
from vision_lab.core.protocols import HeatMaps
from vision_lab.core.spec import DataSpec
from vision_lab.metrics.classification import precision_recall_curve, roc_curve
from vision_lab.tasks.reports.base import LazyFile, LazyImage, Report, Row
from vision_lab.tasks.reports.predictions import ClassPrediction, Prediction
from vision_lab.tasks.reports.worst_samples import WorstSamples
from vision_lab.viz.figures import confusion_matrix, line_chart
from vision_lab.viz.images import grid, overlay_heat_map, side_by_side, to_rgb

NUM_MISTAKES_DRAWN = 24
"""Number of the most confident mistakes to draw."""

NUM_CLASSES_LISTED = 5
"""Number of classes in the table of predictions."""


MAX_CURVES = 20
"""Maximum number of classes whose curves are drawn, those with the smallest area."""

CURVES = (
    ("precision_recall", precision_recall_curve, "recall", "precision (legend: average precision)"),
    ("roc", roc_curve, "false positive rate", "true positive rate (legend: AUC)"),
)
"""Name of the chart, function that computes a curve, labels of the axes."""


class ClassificationReport(Report):
    """Shows classes and their probabilities, (N, K)."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.mistakes: dict[str, WorstSamples[tuple[Tensor, ...]]] = {}
        self.heat_maps: HeatMaps | None = None
        """Shows the image regions that support a class; set by ``build.task``."""
        self.draws_heat_maps = False
        """Whether ``draw`` shows them."""

    def start(self, split: str) -> None:
        self.mistakes.pop(split, None)

    def collect(
        self,
        split: str,
        batch: Batch,
        predictions: Tensor,
    ) -> None:
        """Keep the most confident mistakes."""
        if split == "predict":
            return
        confidence, predicted = predictions.max(dim=1)
        wrong = (predicted != batch.targets).nonzero().flatten()
        count = min(NUM_MISTAKES_DRAWN, len(wrong))
        most_confident = wrong[confidence[wrong].topk(count).indices].tolist()
        worst = self.mistakes.setdefault(split, WorstSamples(NUM_MISTAKES_DRAWN))
        for row in most_confident:
            keep = partial(_copy, batch.images[row], predictions[row], batch.targets[row])
            worst.offer(confidence[row].item(), batch.samples[row].index, keep)

    def draw(
        self,
        batch: Batch,
        predictions: Tensor,
        *,
        with_targets: bool,
    ) -> list[Tensor]:
        """Draw each image with its predicted class, the confidence and the target."""
        return self._draw_all(
            batch.images,
            predictions,
            batch.targets,
            with_heat_maps=self.draws_heat_maps,
        )

    def enable_heat_maps(self) -> None:
        if not self._has_heat_maps():
            needed = "false: this network has no feature maps (N, C, H, W), as vision transformers"
            raise ArgumentError("cam", True, needed)
        self.draws_heat_maps = True

    def figures(
        self,
        split: str,
        results: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Draw the confusion matrix and the most confident mistakes.

        For test images, also curves, and what the network has looked at.
        """
        figures = {"confusion": confusion_matrix(results["confusion"], self.spec.class_names)}
        if "scores" in results:
            figures |= self._draw_curves(results["scores"])
        mistakes = self.mistakes.pop(split, WorstSamples(0)).sorted_samples()
        if mistakes:
            columns = [torch.stack(column) for column in zip(*mistakes, strict=True)]
            with_heat_maps = split == "test" and self._has_heat_maps()
            figures["mistakes"] = grid(self._draw_all(*columns, with_heat_maps=with_heat_maps))
        return figures

    def render_predictions(
        self,
        batch: Batch,
        predictions: Tensor,
        *,
        names: Sequence[str],
        images: Sequence[LazyImage],
    ) -> list[LazyFile]:
        """Return ``cam/<name>.png``: the image as the network sees it, and its heat map."""
        if not self.draws_heat_maps:
            return []
        files: list[LazyFile] = []
        maps = self._compute_maps(batch.images, predictions)
        for image, heat, name in zip(batch.images, maps, names, strict=True):
            files.append((f"cam/{name}.png", partial(_render_heat_map, image, heat)))
        return files

    def _draw_curves(self, scores: Tensor) -> dict[str, Tensor]:
        """Draw the curves of each class against all others, those with the smallest area first."""
        charts = {}
        for name, compute, x, y in CURVES:
            curves = []
            for k, class_name in enumerate(self.spec.class_names):
                curve = compute(scores[:, k])
                if curve is not None:
                    curves.append((curve.area, class_name, curve))
            lines = {}
            for area, class_name, curve in sorted(curves, key=lambda item: item[0])[:MAX_CURVES]:
                lines[f"{class_name} {area:.3f}"] = (curve.x.tolist(), curve.y.tolist())
            if lines:
                charts[name] = line_chart(lines, x=x, y=y)
        return charts

    def per_class(self, results: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
        """Return accuracy (recall), precision and number of samples by class name."""
        matrix = results["confusion"].cpu().double()
        correct, targets, predicted = matrix.diag(), matrix.sum(dim=1), matrix.sum(dim=0)
        metrics = {}
        for k, name in enumerate(self.spec.class_names):
            metrics[name] = {
                "accuracy": (correct[k] / targets[k]).item() if targets[k] else 0.0,
                "precision": (correct[k] / predicted[k]).item() if predicted[k] else 0.0,
                "samples": int(targets[k]),
            }
        return metrics

    def to_results(self, batch: Batch, predictions: Tensor) -> list[Prediction]:
        drawers = self.make_drawers(batch, predictions)
        results: list[Prediction] = []
        for sample, probabilities, draw in zip(batch.samples, predictions, drawers, strict=True):
            scores = {}
            for label in probabilities.argsort(descending=True).tolist():
                scores[self.spec.class_names[label]] = probabilities[label].item()
            best = next(iter(scores))
            results.append(
                ClassPrediction(sample.path, probabilities, draw, best, scores[best], scores)
            )
        return results

    def table_rows(
        self,
        batch: Batch,
        predictions: Tensor,
    ) -> list[Row]:
        """Return the path and the most likely classes of each image."""
        best = predictions.topk(min(NUM_CLASSES_LISTED, predictions.shape[1]), dim=1)
        rows = super().table_rows(batch, predictions)
        for row, confidences, labels in zip(
            rows, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            for rank, (confidence, label) in enumerate(zip(confidences, labels, strict=True), 1):
                suffix = "" if rank == 1 else f"_{rank}"
                row[f"class{suffix}"] = self.spec.class_names[label]
                row[f"confidence{suffix}"] = confidence
        return rows

    def _draw_all(
        self,
        images: Tensor,
        predictions: Tensor,
        targets: Tensor,
        *,
        with_heat_maps: bool,
    ) -> list[Tensor]:
        """Draw each image with its prediction, with or without its heat map."""
        maps: Sequence[Tensor | None] = [None] * len(images)
        if with_heat_maps:
            maps = list(self._compute_maps(images, predictions))
        rows = zip(images, predictions, targets, maps, strict=True)
        return [self._draw(*row) for row in rows]

    def _has_heat_maps(self) -> bool:
        return self.heat_maps is not None and self.heat_maps.layer is not None

    def _compute_maps(self, images: Tensor, predictions: Tensor) -> Tensor:
        """Compute the regions that support the predicted class in each image, (N, H, W)."""
        assert self.heat_maps is not None
        return self.heat_maps(images, predictions.argmax(dim=1))

    def _draw(
        self,
        image: Tensor,
        probabilities: Tensor,
        target: Tensor,
        heat: Tensor | None,
    ) -> Tensor:
        names = self.spec.class_names
        confidence, predicted = probabilities.max(dim=0)
        caption = f"{names[predicted]} {confidence:.2f}"
        shown = [image] if heat is None else [image, overlay_heat_map(image, heat)]
        if target < 0:  # unknown
            return side_by_side(shown, caption)
        if predicted == target:
            return side_by_side(shown, caption, color="green")
        return side_by_side(shown, f"{caption}, target {names[target]}", color="red")


def _copy(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Copy rows of a batch, so that they do not keep the batch in memory."""
    return tuple(tensor.clone() for tensor in tensors)


def _render_heat_map(image: Tensor, heat: Tensor) -> bytes:
    """Draw a heat map beside its image, and encode both as PNG."""
    drawn = torch.cat([to_rgb(image), overlay_heat_map(image, heat)], dim=2)
    return encode_png(drawn).numpy().tobytes()
