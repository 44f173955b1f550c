"""``task=classify``: one class for each image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
)

from vision_lab.core.arguments import NonNegative, Range
from vision_lab.core.batch import Batch
from vision_lab.losses.class_weights import ClassWeights, parse_class_weights
from vision_lab.metrics.segmentation import Confusion, MacroF1
from vision_lab.tasks.base import SupervisedTask, average_logits, main_logits
from vision_lab.tasks.worst_samples import WorstSamples
from vision_lab.viz.figures import confusion_matrix
from vision_lab.viz.images import draw_caption, grid

NUM_MISTAKES_DRAWN = 24
"""Number of the most confident mistakes to draw."""

TOP_K = 5
"""Number of classes in the table of predictions, and of top-k accuracy."""


class ClassificationTask(SupervisedTask):
    """Classification by cross-entropy.

    Args:
        label_smoothing: fraction of the target that is distributed evenly over all classes
            (Szegedy 2015).
        class_weights: one weight for each class; "auto" for the inverse class frequencies in the
            training data; None for equal weights.
        aux_weight: weight of auxiliary classifiers, for networks that have them (0.3 in Szegedy
            2014).
        arguments: arguments of ``Task``.
    """

    def __init__(
        self,
        *,
        label_smoothing: Annotated[float, Range(ge=0, lt=1)],
        class_weights: ClassWeights,
        aux_weight: NonNegative,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.label_smoothing = label_smoothing
        self.auto_class_weights = class_weights == "auto"
        self.aux_weight = aux_weight
        self.class_weights = parse_class_weights(class_weights, self.spec)
        self.mistakes: dict[str, WorstSamples] = {}

    def setup(self, stage: str) -> None:
        """Compute class weights from the training data, if requested."""
        if self.auto_class_weights and stage != "predict":
            self.class_weights = self.trainer.datamodule.class_weights()  # type: ignore[attr-defined]

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross-entropy.

        Args:
            outputs: (N, K) logits; or a tuple of main and auxiliary logits.
            batch: the batch.
        """
        main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = self._cross_entropy(main, batch.targets)
        for logits in auxiliary:
            loss = loss + self.aux_weight * self._cross_entropy(logits, batch.targets)
        return {"loss": loss}

    def decode(self, outputs: Any) -> Tensor:
        """Convert logits to probabilities, (N, K)."""
        return main_logits(outputs).detach().float().softmax(dim=1)

    def average_flipped(self, outputs: Any, flipped: Any) -> Tensor:
        return average_logits(main_logits(outputs), main_logits(flipped))

    def metrics(self, split: str) -> MetricCollection:
        """Create accuracy and, except for training, top-5, F1, calibration error and confusion."""
        num_classes = self.spec.num_classes
        metrics: dict[str, Any] = {"accuracy": MulticlassAccuracy(num_classes, average="micro")}
        if split != "train":
            if num_classes > TOP_K:
                top_k = MulticlassAccuracy(num_classes, average="micro", top_k=TOP_K)
                metrics[f"top{TOP_K}"] = top_k
            metrics["f1"] = MacroF1(num_classes)
            metrics["calibration_error"] = MulticlassCalibrationError(num_classes)
            metrics["confusion"] = Confusion(num_classes)
        # Compute groups are found by equal states after the first batch, in which top-5 accuracy
        # and accuracy may be equal by chance.
        return MetricCollection(metrics, compute_groups=False)

    def collect_examples(self, split: str, batch: Batch, predictions: Tensor) -> None:
        """Draw the most confident mistakes."""
        confidence, predicted = predictions.max(dim=1)
        wrong = (predicted != batch.targets).nonzero().flatten()
        count = min(NUM_MISTAKES_DRAWN, len(wrong))
        most_confident = wrong[confidence[wrong].topk(count).indices].tolist()
        worst = self.mistakes.setdefault(split, WorstSamples(NUM_MISTAKES_DRAWN))
        for row in most_confident:
            draw = partial(self._draw, batch.images[row], predictions[row], batch.targets[row])
            worst.offer(confidence[row].item(), batch.samples[row].index, draw)

    def reset_examples(self, split: str) -> None:
        self.mistakes.pop(split, None)

    def draw_predictions(self, batch: Batch, predictions: Tensor) -> list[Tensor]:
        """Draw each image with its predicted class, the confidence and the target."""
        rows = zip(batch.images, predictions, batch.targets, strict=True)
        return [self._draw(*row) for row in rows]

    def figures(self, split: str) -> Mapping[str, Tensor]:
        """Draw the confusion matrix and the most confident mistakes."""
        matrix = self.results[split]["confusion"]
        figures = {"confusion": confusion_matrix(matrix, self.spec.class_names)}
        mistakes = self.mistakes.pop(split, WorstSamples(0)).images()
        if mistakes:
            figures["mistakes"] = grid(mistakes)
        return figures

    def per_class(self, split: str) -> dict[str, dict[str, float]]:
        """Return accuracy (recall), precision and number of samples by class name."""
        matrix = self.results[split]["confusion"].cpu().double()
        correct, targets, predicted = matrix.diag(), matrix.sum(dim=1), matrix.sum(dim=0)
        metrics = {}
        for k, name in enumerate(self.spec.class_names):
            metrics[name] = {
                "accuracy": (correct[k] / targets[k]).item() if targets[k] else 0.0,
                "precision": (correct[k] / predicted[k]).item() if predicted[k] else 0.0,
                "samples": int(targets[k]),
            }
        return metrics

    def table_rows(self, batch: Batch, predictions: Tensor) -> list[dict[str, str | float]]:
        """Return the path and the five most likely classes of each image."""
        best = predictions.topk(min(TOP_K, predictions.shape[1]), dim=1)
        rows: list[dict[str, str | float]] = []
        for sample, confidences, labels in zip(
            batch.samples, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            row: dict[str, str | float] = {"path": sample.path or str(sample.index)}
            for rank, (confidence, label) in enumerate(zip(confidences, labels, strict=True), 1):
                suffix = "" if rank == 1 else f"_{rank}"
                row[f"class{suffix}"] = self.spec.class_names[label]
                row[f"confidence{suffix}"] = confidence
            rows.append(row)
        return rows

    def save_predictions(
        self,
        batch: Batch,
        predictions: Tensor,
        folder: Path,
        *,
        names: Sequence[str],
        images: Iterable[Tensor],
    ) -> None:
        """Do nothing: a class is a table row."""

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        weight = None if self.class_weights is None else self.class_weights.to(logits.device)
        return F.cross_entropy(logits, targets, weight=weight, label_smoothing=self.label_smoothing)

    def _draw(self, image: Tensor, probabilities: Tensor, target: Tensor) -> Tensor:
        names = self.spec.class_names
        confidence, predicted = probabilities.max(dim=0)
        caption = f"{names[predicted]} {confidence:.2f}"
        if target < 0:  # unknown
            return draw_caption(image, caption)
        if predicted == target:
            return draw_caption(image, caption, color="green")
        return draw_caption(image, f"{caption}, target {names[target]}", color="red")
