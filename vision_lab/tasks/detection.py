"""``task=detect``: objects in an image and their boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from vision_lab.core.batch import Batch, BoxTargets, Detections
from vision_lab.metrics.box_scaling import in_file_pixels, scale_to_file
from vision_lab.metrics.detection import BoxMeanAveragePrecision
from vision_lab.tasks.supervised import SupervisedTask

DetectionLoss = Callable[[Any, Sequence[BoxTargets]], dict[str, Tensor]]
"""Maps the outputs of a detector and the targets of each image to scalars by name."""


class DetectionTask(SupervisedTask):
    """Object detection; crowds are ignored by losses, and detections in them by metrics.

    Predictions are in pixels of the batch images; metrics are in pixels of the original images.

    Args:
        loss: maps the outputs of the network and the targets of each image to scalars by name,
            which are summed; None for the network's own losses, those of its paper.
        arguments: arguments of ``SupervisedTask``; ``network`` is a ``Detector``.
    """

    def __init__(self, *, loss: DetectionLoss | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.loss = loss

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Compute the terms of the loss and their sum."""
        compute: Any = self.network.losses if self.loss is None else self.loss
        terms: dict[str, Tensor] = compute(outputs, batch.targets)
        return {"loss": torch.stack([*terms.values()]).sum(), **terms}

    @torch.no_grad()
    def decode(self, outputs: Any) -> list[Detections]:
        """Convert outputs to detections, in pixels of the batch images."""
        detections: list[Detections] = self.network.decode(outputs)  # type: ignore[operator]  # a Detector
        return detections

    def metrics(self, split: str) -> MetricCollection:
        """Create COCO's metrics; none for training images, which are augmented."""
        if split == "train":
            return MetricCollection({})
        metrics: dict[str, Any] = {"boxes": BoxMeanAveragePrecision(self.spec.num_classes)}
        return MetricCollection(metrics, compute_groups=False)

    def update_metrics(
        self, metrics: MetricCollection, batch: Batch, predictions: Sequence[Detections]
    ) -> None:
        """Update metrics in pixels of the original images."""
        targets = []
        for target, sample in zip(batch.targets, batch.samples, strict=True):
            targets.append(replace(target, boxes=scale_to_file(target.boxes, sample)))
        metrics.update(list(in_file_pixels(predictions, batch.samples)), targets)
