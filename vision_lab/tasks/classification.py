"""``task=classify``: one class for each image."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
)

from vision_lab.metrics.classification import ScoreHistogram
from vision_lab.metrics.segmentation import Confusion, MacroF1
from vision_lab.tasks.class_prediction import ClassPredictionTask
from vision_lab.tasks.logits import main_logits

TOP_K = 5
"""Number of classes of top-k accuracy."""


class ClassificationTask(ClassPredictionTask):
    """Classification of images."""

    def decode(self, outputs: Any) -> Tensor:
        """Convert logits to probabilities, (N, K)."""
        return main_logits(outputs).detach().float().softmax(dim=1)

    def metrics(self, split: str) -> MetricCollection:
        """Create accuracy and, except for training, top-5, F1, calibration error and confusion.

        The test split also has the histogram of scores, for its curves.
        """
        num_classes = self.spec.num_classes
        metrics: dict[str, Any] = {"accuracy": MulticlassAccuracy(num_classes, average="micro")}
        if split != "train":
            if num_classes > TOP_K:
                top_k = MulticlassAccuracy(num_classes, average="micro", top_k=TOP_K)
                metrics[f"top{TOP_K}"] = top_k
            metrics["f1"] = MacroF1(num_classes)
            metrics["calibration_error"] = MulticlassCalibrationError(num_classes)
            metrics["confusion"] = Confusion(num_classes)
        if split == "test":
            metrics["scores"] = ScoreHistogram(num_classes)
        # Compute groups are found by equal states after the first batch, in which top-5 accuracy
        # and accuracy may be equal by chance.
        return MetricCollection(metrics, compute_groups=False)
