"""``task=segment``: which class each pixel is of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchvision.io import encode_jpeg

from vision_lab.core.arguments import NonNegative
from vision_lab.core.batch import Batch
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import write_file
from vision_lab.core.spec import IGNORE_INDEX
from vision_lab.losses.class_weights import ClassWeights, parse_class_weights
from vision_lab.metrics.segmentation import (
    SegmentationMetrics,
    dice,
    intersection_over_union,
    segmentation_scores,
    update_confusion,
)
from vision_lab.tasks.base import SupervisedTask, average_logits, main_logits
from vision_lab.tasks.tiling import Window, tiles
from vision_lab.tasks.worst_samples import WorstSamples
from vision_lab.viz import figures, images

NUM_WORST_DRAWN = 16
"""How many of the pictures that agree least with their truth are kept to be drawn."""


TILE_BATCH_SIZE = 8
"""Tiles that are looked at together."""


class SegmentationTask(SupervisedTask):
    """One of K classes for each pixel; pixels of 255 are neither learnt from nor measured.

    Args:
        losses: name: how much it counts, of ``cross_entropy``, ``dice`` (Milletari 2016, its
            denominator not squared) and ``focal`` (Lin 2017);
            those of 0 are not computed.
        focal_gamma: how much less pixels that are right already count in the focal loss (2 in the paper).
        class_weights: None; one number a class; or "auto": median frequency balancing over the training masks
            (Eigen 2014). They weigh the pixels of cross-entropy and focal loss.
        aux_weight: what an auxiliary head counts (0.5 in torchvision's recipes).
        arguments: what every task takes.
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
        known = {"cross_entropy": self._cross_entropy, "dice": self._dice, "focal": self._focal}
        if unknown := sorted(set(loss_weights) - set(known)):
            raise ConfigurationError(
                f"task.loss_weights.{unknown[0]}: there is no such loss; there are {', '.join(known)}"
            )
        if not any(loss_weights.values()):
            raise ConfigurationError("task.loss_weights: type a number above 0 for at least one")
        self.terms = {
            name: (known[name], weight) for name, weight in loss_weights.items() if weight > 0
        }
        self.focal_gamma = focal_gamma
        self.balance = class_weights == "auto"
        self.class_weights = parse_class_weights(class_weights, self.spec)
        self.aux_weight = aux_weight
        self.tile_overlap: float | None = None
        self.worst: dict[str, WorstSamples] = {}

    def setup(self, stage: str) -> None:
        """Balance the classes by the training data, where asked; evaluation needs the weights for its loss."""
        if self.balance and stage != "predict":
            self.class_weights = self.trainer.datamodule.class_weights()  # type: ignore[attr-defined]

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """The weighted sum for (N, K, H, W) logits, and its terms; of a tuple of them the later ones are auxiliary."""
        main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        targets = batch.targets.long()
        terms = {
            name: weight * loss(main.float(), targets)
            for name, (loss, weight) in self.terms.items()
        }
        for logits in auxiliary:
            others = [
                weight * loss(logits.float(), targets) for loss, weight in self.terms.values()
            ]
            terms["auxiliary"] = (
                terms.get("auxiliary", 0) + self.aux_weight * torch.stack(others).sum()
            )
        return {"loss": torch.stack([*terms.values()]).sum(), **terms}

    def decode(self, outputs: Any) -> Tensor:
        """(N, H, W) uint8 classes."""
        return main_logits(outputs).detach().argmax(dim=1).to(torch.uint8)

    def average_flipped(self, outputs: Any, mirrored: Any) -> Tensor:
        """Logits whose probabilities are the mean of both."""
        return average_logits(main_logits(outputs), main_logits(mirrored).flip(-1))

    def enable_tiling(self, overlap: float) -> None:
        """From now on predict on whole pictures by tiles of the size the network was trained on."""
        self.tile_overlap = overlap

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Tensor] | None:
        """One (h, w) uint8 mask of classes a picture, of the size of its file."""
        if not batch.samples:
            return None
        if self.tile_overlap is not None:
            return [self._by_tiles(image, self.tile_overlap) for image in batch.images]
        logits = main_logits(self.forward_tta(batch.images))
        return [
            _argmax_at_size(each, sample.size)
            for each, sample in zip(logits, batch.samples, strict=True)
        ]

    def metrics(self, split: str) -> MetricCollection:
        """Mean IoU, dice, pixel accuracy and the counts they come from, over the whole split."""
        return MetricCollection({"overlap": SegmentationMetrics(self.spec.num_classes)})

    def collect_examples(self, split: str, batch: Batch, predictions: Tensor) -> None:
        """Keep the pictures that agree least with their truth, drawn."""
        worst = self.worst.setdefault(split, WorstSamples(NUM_WORST_DRAWN))
        for image, said, truth, sample in zip(
            batch.images, predictions, batch.targets, batch.samples, strict=True
        ):
            if (truth != IGNORE_INDEX).any():
                found = self._agreement(said, truth)
                worst.offer(
                    1 - found["miou"].item(),
                    sample.index,
                    partial(self._compared, image, said, truth),
                )

    def reset_examples(self, split: str) -> None:
        """Drop the pictures of the epoch before."""
        self.worst.pop(split, None)

    def draw_predictions(
        self, batch: Batch, predictions: Sequence[Tensor] | Tensor
    ) -> list[Tensor]:
        """Each picture beside its truth, its prediction and where they differ; beside masks of files' sizes alone."""
        if isinstance(predictions, Tensor):
            return [
                self._compared(*each)
                for each in zip(batch.images, predictions, batch.targets, strict=True)
            ]
        return [self._predicted(*each) for each in zip(batch.images, predictions, strict=True)]

    def contact_sheet(self, pictures: Sequence[Tensor]) -> Tensor:
        """The pictures over the colours of the classes."""
        return images.with_legend(images.grid(pictures), self.spec.class_names)

    def figures(self, split: str) -> Mapping[str, Tensor]:
        """The confusion matrix, IoU by class, and the pictures that agree least, of those this process saw."""
        counts = self.results[split]["confusion"]
        names = self.spec.class_names
        overlaps = {name: measured["iou"] for name, measured in self.per_class(split).items()}
        drawn = {
            "confusion": figures.confusion(counts, names, unit="pixels"),
            "iou": figures.bars(overlaps, "IoU"),
        }
        worst = self.worst.pop(split, WorstSamples(0)).pictures()
        return {**drawn, "worst": self.contact_sheet(worst)} if worst else drawn

    def per_class(self, split: str) -> dict[str, dict[str, float]]:
        """class: its IoU, dice, accuracy (recall) and number of pixels; those neither there nor said are left out."""
        matrix = self.results[split]["confusion"].cpu().double()
        iou, shared, truly = intersection_over_union(matrix), dice(matrix), matrix.sum(dim=1)
        return {
            name: {
                "iou": iou[k].item(),
                "dice": shared[k].item(),
                "accuracy": (matrix[k, k] / truly[k]).item() if truly[k] else 0.0,
                "pixels": int(truly[k]),
            }
            for k, name in enumerate(self.spec.class_names)
            if not iou[k].isnan()
        }

    def table_rows(
        self, batch: Batch, predictions: Sequence[Tensor]
    ) -> list[dict[str, str | float]]:
        """The file, and the part of its pixels that each class has."""
        rows: list[dict[str, str | float]] = []
        for sample, mask in zip(batch.samples, predictions, strict=True):
            counts = torch.bincount(mask.flatten().int(), minlength=self.spec.num_classes)
            shares = (counts.double() / mask.numel()).tolist()
            named = {
                f"share_{name}": share
                for name, share in zip(self.spec.class_names, shares, strict=True)
            }
            rows.append({"path": sample.path or str(sample.index), **named})
        return rows

    def save_predictions(
        self,
        batch: Batch,
        predictions: Sequence[Tensor],
        folder: Path,
        *,
        names: Sequence[str],
        pictures: Iterable[Tensor],
    ) -> None:
        """``masks/<name>.png``: classes in a palette, with their names; ``overlays/<name>.jpg``: on the picture."""
        for picture, mask, name in zip(pictures, predictions, names, strict=True):
            write_file(
                folder, f"masks/{name}.png", images.palette_png(mask.cpu(), self.spec.class_names)
            )
            laid = images.overlay_mask(picture, mask.cpu())
            write_file(
                folder, f"overlays/{name}.jpg", encode_jpeg(laid, quality=90).numpy().tobytes()
            )

    def _weights(self, like: Tensor) -> Tensor | None:
        return None if self.class_weights is None else self.class_weights.to(like.device)

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        weights = self._weights(logits)
        total = F.cross_entropy(
            logits, targets, weight=weights, ignore_index=IGNORE_INDEX, reduction="sum"
        )
        known = targets != IGNORE_INDEX
        count = (
            known.sum()
            if weights is None
            else (weights[torch.where(known, targets, 0)] * known).sum()
        )
        return total / count.where(
            count > 0, 1
        )  # not torch's mean, which is NaN where nothing counts

    def _focal(self, logits: Tensor, targets: Tensor) -> Tensor:
        surprise = F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="none")
        weighted = F.cross_entropy(
            logits,
            targets,
            weight=self._weights(logits),
            ignore_index=IGNORE_INDEX,
            reduction="none",
        )
        wrong = (1 - (-surprise).exp()).clamp(min=1e-6)  # at 0 a power below 1 has no slope
        return (wrong**self.focal_gamma * weighted).sum() / (targets != IGNORE_INDEX).sum().clamp(
            min=1
        )

    def _dice(self, logits: Tensor, targets: Tensor) -> Tensor:
        """One minus the soft dice of the whole batch, the mean over the classes that are in it."""
        known = targets != IGNORE_INDEX
        truth = torch.where(known, targets, 0)
        said = logits.softmax(dim=1) * known[:, None]
        nothing = said.new_zeros(logits.shape[1])
        both = nothing.index_add(0, truth.flatten(), said.gather(1, truth[:, None]).flatten())
        pixels = nothing.index_add(0, truth.flatten(), known.flatten().to(said.dtype))
        dice = 2 * both / (said.sum(dim=(0, 2, 3)) + pixels).clamp(min=1e-6)
        there = pixels > 0
        return ((1 - dice) * there).sum() / there.sum().clamp(min=1)

    def _by_tiles(self, image: Tensor, overlap: float) -> Tensor:
        """(H, W) uint8 classes of a picture (C, H, W) uint8; besides it only a few tiles are held at a time."""
        height, width = image.shape[-2:]
        size = self.spec.image_size
        sides = [max(*each) for each in zip((height, width), size, strict=True)]
        mask = torch.empty(sides, dtype=torch.uint8, device=image.device)
        cut = tiles(sides, size, overlap)
        while some := list(islice(cut, TILE_BATCH_SIZE)):
            seen = torch.stack([_window(image, window) for window, _ in some])
            for (_, part), prediction in zip(
                some, self.decode(self.forward_tta(seen)), strict=True
            ):
                mask[part.in_image] = prediction[part.in_tile]
        return mask[:height, :width]

    def _agreement(self, said: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Of one picture, in this process alone: a metric would ask the others for theirs."""
        counts = torch.zeros(
            self.spec.num_classes, self.spec.num_classes, dtype=torch.int64, device=said.device
        )
        update_confusion(counts, said, truth, ignore=IGNORE_INDEX)
        return segmentation_scores(counts)

    def _compared(self, image: Tensor, said: Tensor, truth: Tensor) -> Tensor:
        found = self._agreement(said, truth)
        caption = f"picture, truth, prediction, errors.  Mean IoU {found['miou']:.2f}"
        shown = [
            images.colorize_mask(truth),
            images.colorize_mask(said),
            images.draw_mask_errors(image, said, truth),
        ]
        return images.side_by_side(
            [image, *shown], f"{caption}, {found['pixel_accuracy']:.0%} of pixels right"
        )

    def _predicted(self, image: Tensor, mask: Tensor) -> Tensor:
        shares = (
            torch.bincount(mask.flatten().int(), minlength=self.spec.num_classes) / mask.numel()
        )
        most = [
            f"{self.spec.class_names[k]} {shares[k]:.0%}"
            for k in shares.topk(min(3, len(shares))).indices
        ]
        return images.side_by_side([image, images.overlay_mask(image, mask)], ", ".join(most))


def _window(image: Tensor, window: Window) -> Tensor:
    """The part (C, h, w) of a picture; beyond its border its last line is repeated."""
    rows, columns = (
        torch.arange(part.start, part.stop, device=image.device).clamp(max=side - 1)
        for part, side in zip(window, image.shape[-2:], strict=True)
    )
    return image[:, rows[:, None], columns]


def _argmax_at_size(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(h, w) uint8: the classes of logits (K, H, W) enlarged or reduced, one class at a time: pictures may be large."""
    best, classes = None, torch.zeros(size, dtype=torch.uint8, device=logits.device)
    for k, scores in enumerate(logits.float().softmax(dim=0)):
        resized = F.interpolate(scores[None, None], size, mode="bilinear", align_corners=False)[
            0, 0
        ]
        better = torch.ones_like(resized, dtype=torch.bool) if best is None else resized > best
        best = resized if best is None else torch.maximum(best, resized)
        classes[better] = k
    return classes
