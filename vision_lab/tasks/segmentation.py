"""``task=segment``: one class for each pixel."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from vision_lab.core.batch import Batch
from vision_lab.metrics.segmentation import SegmentationMetrics
from vision_lab.tasks.class_prediction import ClassPredictionTask
from vision_lab.tasks.logits import main_logits
from vision_lab.tasks.tiling import Window, tiles

TILE_BATCH_SIZE = 8
"""Number of tiles in a batch."""


class SegmentationTask(ClassPredictionTask):
    """Semantic segmentation; pixels labeled 255 are ignored by losses and metrics.

    Args:
        arguments: arguments of ``ClassPredictionTask``.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.tile_overlap: float | None = None

    def decode(self, outputs: Any) -> Tensor:
        """Convert logits to labels, (N, H, W) uint8."""
        return main_logits(outputs).detach().argmax(dim=1).to(torch.uint8)

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
        metrics: dict[str, Any] = {"overlap": SegmentationMetrics(self.spec.num_classes)}
        return MetricCollection(metrics, compute_groups=False)

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
