"""``task=classify``: one class for each image."""

from __future__ import annotations

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
from vision_lab.tasks.supervised import SupervisedTask, average_logits, main_logits

TOP_K = 5
"""Number of classes of top-k accuracy."""


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

    def setup(self, stage: str) -> None:
        """Compute class weights from the training data, if requested."""
        if self.auto_class_weights and stage != "predict":
            self.class_weights = self.require_data().class_weights()

    def losses(
        self,
        outputs: Any,
        batch: Batch,
    ) -> dict[str, Tensor]:
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

    def average_flipped(
        self,
        outputs: Any,
        flipped: Any,
    ) -> Tensor:
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

    def _cross_entropy(
        self,
        logits: Tensor,
        targets: Tensor,
    ) -> Tensor:
        weight = None if self.class_weights is None else self.class_weights.to(logits.device)
        return F.cross_entropy(logits, targets, weight=weight, label_smoothing=self.label_smoothing)
