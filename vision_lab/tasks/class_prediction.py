"""``ClassPredictionTask``: a task that predicts classes, of images or of pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vision_lab.core.arguments import ArgumentError, NonNegative
from vision_lab.core.batch import Batch
from vision_lab.losses.class_weights import (
    ClassWeights,
    parse_class_weights,
    set_class_weights,
)
from vision_lab.tasks.logits import all_logits, average_logits, main_logits
from vision_lab.tasks.supervised import SupervisedTask

ClassLoss = Callable[[Tensor, Tensor], Tensor | Mapping[str, Tensor]]
"""Maps logits and int64 targets to a scalar, or to scalars by name that are summed."""


class ClassPredictionTask(SupervisedTask):
    """A task whose network predicts a logit for each class, and which minimizes a loss of them.

    Args:
        loss: the loss, any module of torch's kind: called with logits (N, K) or (N, K, H, W) and
            targets (N,) or (N, H, W) int64. If it has class weights, they are its ``weight``.
        class_weights: one weight for each class; "auto" to compute them from the training data;
            None for equal weights.
        aux_weight: weight of the loss of auxiliary outputs, for networks that have them.
        arguments: arguments of ``SupervisedTask``.

    Raises:
        ArgumentError: if the weights do not fit the classes or the loss.
    """

    def __init__(
        self,
        *,
        loss: ClassLoss,
        class_weights: ClassWeights,
        aux_weight: NonNegative,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        if class_weights is not None and not hasattr(loss, "weight"):
            needed = "null: the loss has no class weights (an attribute `weight`)"
            raise ArgumentError("class_weights", class_weights, needed)
        self.loss = loss
        self.auto_class_weights = class_weights == "auto"
        self.aux_weight = aux_weight
        self.flip_tta = False
        """Whether to average the predictions of each image and its mirror image."""
        weights = parse_class_weights(class_weights, self.spec)
        if weights is not None:
            set_class_weights(loss, weights)

    def setup(self, stage: str) -> None:
        """Prepare the network, and compute class weights from the training data if requested."""
        super().setup(stage)
        if self.auto_class_weights and stage != "predict":
            weights = self.require_data().class_weights()
            set_class_weights(self.loss, weights.to(self.device))

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Compute the terms of the loss and their sum.

        Args:
            outputs: main and auxiliary logits, see ``all_logits``.
            batch: the batch.
        """
        main, *auxiliary = all_logits(outputs)
        targets = batch.targets.long()
        terms = self._loss_terms(main, targets)
        if auxiliary:
            sums = [_sum(self._loss_terms(logits, targets)) for logits in auxiliary]
            terms["auxiliary"] = self.aux_weight * torch.stack(sums).sum()
        total = _sum(terms)
        terms.pop("main", None)
        return {"loss": total, **terms}

    def enable_flip_tta(self) -> None:
        self.flip_tta = True

    def forward_tta(self, images: Tensor) -> Any:
        """Apply the network, also to the mirror images if ``flip_tta`` is set.

        Args:
            images: (N, C, H, W) uint8.
        """
        if not self.flip_tta:
            return self(images)
        logits, mirrored = main_logits(self(images)), main_logits(self(images.flip(-1)))
        if mirrored.ndim == 4:  # of pixels
            mirrored = mirrored.flip(-1)
        return average_logits(logits, mirrored)

    def _loss_terms(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        loss = self.loss(logits.float(), targets)
        if isinstance(loss, Tensor):
            return {"main": loss}
        return dict(loss)


def _sum(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([*terms.values()]).sum()
