"""The report of ``task=classify``: confusion matrix, mistakes, and the most likely classes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from vision_lab.core.batch import Batch
from vision_lab.core.spec import DataSpec
from vision_lab.metrics.classification import precision_recall_curve, roc_curve
from vision_lab.tasks.reports.base import Report, Row
from vision_lab.tasks.reports.predictions import ClassPrediction, Prediction
from vision_lab.tasks.reports.worst_samples import WorstSamples
from vision_lab.viz.figures import confusion_matrix, line_chart
from vision_lab.viz.images import draw_caption, grid

NUM_MISTAKES_DRAWN = 24
"""Number of the most confident mistakes to draw."""

NUM_CLASSES_LISTED = 5
"""Number of classes in the table of predictions."""


MAX_CURVES = 20
"""Maximum number of classes whose curves are drawn, those with the smallest area."""

CURVES = (
    ("precision_recall", precision_recall_curve, "recall", "precision (area: average precision)"),
    ("roc", roc_curve, "false positive rate", "true positive rate (area: AUC)"),
)
"""Name of the chart, function that computes a curve, labels of the axes."""


class ClassificationReport(Report):
    """Shows classes and their probabilities, (N, K)."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.mistakes: dict[str, WorstSamples] = {}

    def start(self, split: str) -> None:
        self.mistakes.pop(split, None)

    def collect(
        self,
        split: str,
        batch: Batch,
        predictions: Tensor,
    ) -> None:
        """Draw the most confident mistakes."""
        if split == "predict":
            return
        confidence, predicted = predictions.max(dim=1)
        wrong = (predicted != batch.targets).nonzero().flatten()
        count = min(NUM_MISTAKES_DRAWN, len(wrong))
        most_confident = wrong[confidence[wrong].topk(count).indices].tolist()
        worst = self.mistakes.setdefault(split, WorstSamples(NUM_MISTAKES_DRAWN))
        for row in most_confident:
            draw = partial(self._draw, batch.images[row], predictions[row], batch.targets[row])
            worst.offer(confidence[row].item(), batch.samples[row].index, draw)

    def draw(
        self,
        batch: Batch,
        predictions: Tensor,
        *,
        with_targets: bool,
    ) -> list[Tensor]:
        """Draw each image with its predicted class, the confidence and the target."""
        rows = zip(batch.images, predictions, batch.targets, strict=True)
        return [self._draw(*row) for row in rows]

    def figures(
        self,
        split: str,
        results: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Draw the confusion matrix, the most confident mistakes and, for test images, curves."""
        figures = {"confusion": confusion_matrix(results["confusion"], self.spec.class_names)}
        if "scores" in results:
            figures |= self._draw_curves(results["scores"])
        mistakes = self.mistakes.pop(split, WorstSamples(0)).images()
        if mistakes:
            figures["mistakes"] = grid(mistakes)
        return figures

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

    def _draw(
        self,
        image: Tensor,
        probabilities: Tensor,
        target: Tensor,
    ) -> Tensor:
        names = self.spec.class_names
        confidence, predicted = probabilities.max(dim=0)
        caption = f"{names[predicted]} {confidence:.2f}"
        if target < 0:  # unknown
            return draw_caption(image, caption)
        if predicted == target:
            return draw_caption(image, caption, color="green")
        return draw_caption(image, f"{caption}, target {names[target]}", color="red")
