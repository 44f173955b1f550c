"""``task=classify``: which class is in the picture."""

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
from vision_lab.viz.figures import confusion
from vision_lab.viz.images import draw_caption, grid

NUM_MISTAKES_DRAWN = 24
"""How many of the most confident mistakes are kept to be drawn."""


class ClassificationTask(SupervisedTask):
    """One of K classes for each picture, by cross-entropy.

    Args:
        label_smoothing: the share of the target spread evenly over all classes (Szegedy 2015).
        class_weights: None; one number a class; or "auto": the inverse of each class's share of the data's
            training labels.
        aux_weight: what auxiliary classifiers count, for networks that have them (0.3 in Szegedy 2014).
        arguments: what every task takes.
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
        """Balance the classes by the training data, where asked; evaluation needs the weights for its loss."""
        if self.auto_class_weights and stage != "predict":
            self.class_weights = self.trainer.datamodule.class_weights()  # type: ignore[attr-defined]

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of (N, K) logits; of a tuple of them, the later ones as auxiliary."""
        main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = self._cross_entropy(main, batch.targets)
        for logits in auxiliary:
            loss = loss + self.aux_weight * self._cross_entropy(logits, batch.targets)
        return {"loss": loss}

    def decode(self, outputs: Any) -> Tensor:
        """(N, K) probabilities."""
        return main_logits(outputs).detach().float().softmax(dim=1)

    def average_flipped(self, outputs: Any, mirrored: Any) -> Tensor:
        """Logits whose probabilities are the mean of both."""
        return average_logits(main_logits(outputs), main_logits(mirrored))

    def metrics(self, split: str) -> MetricCollection:
        """Accuracy alone while training; else top-5, macro F1, calibration error and the confusion matrix as well."""
        classes = self.spec.num_classes
        measured: dict[str, Any] = {"accuracy": MulticlassAccuracy(classes, average="micro")}
        if split != "train":
            if classes > 5:
                measured["top5"] = MulticlassAccuracy(classes, average="micro", top_k=5)
            measured["f1"] = MacroF1(classes)
            measured["calibration_error"] = MulticlassCalibrationError(classes)
            measured["confusion"] = Confusion(classes)
        # Groups would be found by equal states after the first batch, where top-5 and accuracy may agree by chance.
        return MetricCollection(measured, compute_groups=False)

    def collect_examples(self, split: str, batch: Batch, predictions: Tensor) -> None:
        """Keep the most confident mistakes, drawn."""
        confidence, said = predictions.max(dim=1)
        wrong = (said != batch.targets).nonzero().flatten()
        worst = self.mistakes.setdefault(split, WorstSamples(NUM_MISTAKES_DRAWN))
        for place in wrong[
            confidence[wrong].topk(min(NUM_MISTAKES_DRAWN, len(wrong))).indices
        ].tolist():
            shown = (batch.images[place], predictions[place], batch.targets[place])
            worst.offer(
                confidence[place].item(), batch.samples[place].index, partial(self._drawn, *shown)
            )

    def reset_examples(self, split: str) -> None:
        """Drop the mistakes of the epoch before."""
        self.mistakes.pop(split, None)

    def draw_predictions(self, batch: Batch, predictions: Tensor) -> list[Tensor]:
        """Each picture under its class, confidence and truth."""
        return [
            self._drawn(*each)
            for each in zip(batch.images, predictions, batch.targets, strict=True)
        ]

    def figures(self, split: str) -> Mapping[str, Tensor]:
        """The confusion matrix, and the most confident mistakes."""
        drawn = {"confusion": confusion(self.results[split]["confusion"], self.spec.class_names)}
        mistakes = self.mistakes.pop(split, WorstSamples(0)).pictures()
        if mistakes:
            drawn["mistakes"] = grid(mistakes)
        return drawn

    def per_class(self, split: str) -> dict[str, dict[str, float]]:
        """class: its accuracy (recall), precision and number of samples on a split that was measured."""
        matrix = self.results[split]["confusion"].cpu().double()
        hits, truly, said = matrix.diag(), matrix.sum(dim=1), matrix.sum(dim=0)
        return {
            name: {
                "accuracy": (hits[k] / truly[k]).item() if truly[k] else 0.0,
                "precision": (hits[k] / said[k]).item() if said[k] else 0.0,
                "samples": int(truly[k]),
            }
            for k, name in enumerate(self.spec.class_names)
        }

    def table_rows(self, batch: Batch, predictions: Tensor) -> list[dict[str, str | float]]:
        """The file, the class, its confidence, and the four next likely."""
        best = predictions.topk(min(5, predictions.shape[1]), dim=1)
        rows: list[dict[str, str | float]] = []
        for sample, values, classes in zip(
            batch.samples, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            row: dict[str, str | float] = {"path": sample.path or str(sample.index)}
            for rank, (value, label) in enumerate(zip(values, classes, strict=True), start=1):
                suffix = "" if rank == 1 else f"_{rank}"
                row |= {
                    f"class{suffix}": self.spec.class_names[label],
                    f"confidence{suffix}": value,
                }
            rows.append(row)
        return rows

    def save_predictions(
        self,
        batch: Batch,
        predictions: Tensor,
        folder: Path,
        *,
        names: Sequence[str],
        pictures: Iterable[Tensor],
    ) -> None:
        """A class is a table row: there is nothing more to write."""

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        weight = None if self.class_weights is None else self.class_weights.to(logits.device)
        return F.cross_entropy(logits, targets, weight=weight, label_smoothing=self.label_smoothing)

    def _drawn(self, image: Tensor, probabilities: Tensor, target: Tensor) -> Tensor:
        names = self.spec.class_names
        confidence, said = probabilities.max(dim=0)
        caption = f"said {names[said]} {confidence:.2f}"
        if target < 0:  # not known
            return draw_caption(image, f"{names[said]} {confidence:.2f}")
        if said == target:
            return draw_caption(image, caption, colour="green")
        return draw_caption(image, f"{caption}, is {names[target]}", colour="red")
