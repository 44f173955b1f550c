"""``task=segment``: one class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from vision_lab.core.arguments import NonNegative
from vision_lab.core.batch import Batch
from vision_lab.core.errors import ConfigurationError
from vision_lab.losses import segmentation as losses
from vision_lab.losses.class_weights import ClassWeights, parse_class_weights
from vision_lab.metrics.segmentation import (
    SegmentationMetrics,
)
from vision_lab.tasks.supervised import SupervisedTask, average_logits, main_logits
from vision_lab.tasks.tiling import Window, tiles

TILE_BATCH_SIZE = 8
"""Number of tiles in a batch."""


class SegmentationTask(SupervisedTask):
    """Semantic segmentation; pixels labeled 255 are ignored by losses and metrics.

    Args:
        loss_weights: weight of each loss: ``cross_entropy``, ``dice`` (Milletari 2016, without
            squares in the denominator) and ``focal`` (Lin 2017). Losses of weight 0 are not
            computed.
        focal_gamma: focusing parameter of the focal loss (2 in the paper).
        class_weights: one weight for each class, in cross-entropy and focal loss; "auto" for median
            frequency balancing over the training masks (Eigen 2014); None for equal weights.
        aux_weight: weight of an auxiliary head (0.5 in torchvision's recipes).
        arguments: arguments of ``Task``.

    Raises:
        ConfigurationError: if there is no such loss, or all weights are 0.
    """

    def __init__(
        self,
        *,
        loss_weights: Mapping[str, NonNegative],
        focal_gamma: NonNegative,
        class_weights: ClassWeights,
        aux_weight: NonNegative,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        functions = {
            "cross_entropy": self._cross_entropy,
            "dice": losses.dice,
            "focal": self._focal,
        }
        unknown = sorted(set(loss_weights) - set(functions))
        if unknown:
            raise ConfigurationError(
                f"task.loss_weights.{unknown[0]}: there is no such loss; the losses are "
                f"{', '.join(functions)}"
            )
        if not any(loss_weights.values()):
            raise ConfigurationError("task.loss_weights: type a number above 0 for at least one")
        self.terms = {
            name: (functions[name], weight) for name, weight in loss_weights.items() if weight > 0
        }
        self.focal_gamma = focal_gamma
        self.auto_class_weights = class_weights == "auto"
        self.class_weights = parse_class_weights(class_weights, self.spec)
        self.aux_weight = aux_weight
        self.tile_overlap: float | None = None

    def setup(self, stage: str) -> None:
        """Compute class weights from the training data, if requested."""
        if self.auto_class_weights and stage != "predict":
            self.class_weights = self.require_data().class_weights()

    def losses(
        self,
        outputs: Any,
        batch: Batch,
    ) -> dict[str, Tensor]:
        """Compute the weighted losses and their sum.

        Args:
            outputs: (N, K, H, W) logits; or a tuple of main and auxiliary logits.
            batch: the batch.
        """
        main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        targets = batch.targets.long()
        terms = {}
        for name, (loss, weight) in self.terms.items():
            terms[name] = weight * loss(main.float(), targets)
        for logits in auxiliary:
            weighted = [
                weight * loss(logits.float(), targets) for loss, weight in self.terms.values()
            ]
            auxiliary_loss = self.aux_weight * torch.stack(weighted).sum()
            terms["auxiliary"] = terms.get("auxiliary", 0) + auxiliary_loss
        return {"loss": torch.stack([*terms.values()]).sum(), **terms}

    def decode(self, outputs: Any) -> Tensor:
        """Convert logits to labels, (N, H, W) uint8."""
        return main_logits(outputs).detach().argmax(dim=1).to(torch.uint8)

    def average_flipped(
        self,
        outputs: Any,
        flipped: Any,
    ) -> Tensor:
        return average_logits(main_logits(outputs), main_logits(flipped).flip(-1))

    def enable_tiling(self, overlap: float) -> None:
        self.tile_overlap = overlap

    def predict_step(
        self,
        batch: Batch,
        batch_idx: int,
    ) -> list[Tensor] | None:
        """Predict a mask (h, w) uint8 for each image, at the size of its file."""
        if not batch.samples:
            return None
        if self.tile_overlap is not None:
            return [self._predict_tiles(image, self.tile_overlap) for image in batch.images]
        logits = main_logits(self.forward_tta(batch.images))
        rows = zip(logits, batch.samples, strict=True)
        return [_argmax_at_size(image_logits, sample.size) for image_logits, sample in rows]

    def metrics(self, split: str) -> MetricCollection:
        return MetricCollection({"overlap": SegmentationMetrics(self.spec.num_classes)})

    def _class_weights_on(self, device: torch.device) -> Tensor | None:
        if self.class_weights is None:
            return None
        return self.class_weights.to(device)

    def _cross_entropy(
        self,
        logits: Tensor,
        targets: Tensor,
    ) -> Tensor:
        return losses.cross_entropy(logits, targets, weights=self._class_weights_on(logits.device))

    def _focal(
        self,
        logits: Tensor,
        targets: Tensor,
    ) -> Tensor:
        weights = self._class_weights_on(logits.device)
        return losses.focal(logits, targets, gamma=self.focal_gamma, weights=weights)

    def _predict_tiles(
        self,
        image: Tensor,
        overlap: float,
    ) -> Tensor:
        """Predict a large image with little memory.

        Args:
            image: (C, H, W) uint8.
            overlap: overlap of adjacent tiles, as a fraction of their side.

        Returns:
            (H, W) uint8 labels.
        """
        height, width = image.shape[-2:]
        tile_size = self.spec.image_size
        size = (max(height, tile_size[0]), max(width, tile_size[1]))
        mask = torch.empty(size, dtype=torch.uint8, device=image.device)
        all_tiles = tiles(size, tile_size, overlap)
        while batch := list(islice(all_tiles, TILE_BATCH_SIZE)):
            crops = torch.stack([_crop(image, window) for window, _ in batch])
            predictions = self.decode(self.forward_tta(crops))
            for (_, part), prediction in zip(batch, predictions, strict=True):
                mask[part.in_image] = prediction[part.in_tile]
        return mask[:height, :width]


def _crop(image: Tensor, window: Window) -> Tensor:
    """Crop an image (C, H, W), repeating its last row and column beyond the lower right borders."""
    height, width = image.shape[-2:]
    vertical, horizontal = window
    rows = torch.arange(vertical.start, vertical.stop, device=image.device)
    columns = torch.arange(horizontal.start, horizontal.stop, device=image.device)
    return image[:, rows.clamp(max=height - 1)[:, None], columns.clamp(max=width - 1)]


def _argmax_at_size(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize logits (K, H, W) and return the labels (h, w) uint8.

    Classes are resized one at a time, because images may be large.
    """
    labels = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    best: Tensor | None = None
    for label, probabilities in enumerate(logits.float().softmax(dim=0)):
        batch = probabilities[None, None]
        resized = F.interpolate(batch, size, mode="bilinear", align_corners=False)[0, 0]
        if best is None:
            best = resized
            continue
        labels[resized > best] = label
        best = torch.maximum(best, resized)
    return labels
