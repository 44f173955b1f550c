"""A detector of one stage and no anchors in the line of YOLO, small enough for a CPU.

Cells say whether an object's centre is near and how well they know its box (Redmon 2016, section 2:
https://arxiv.org/abs/1506.02640), at several strides (Redmon 2018: https://arxiv.org/abs/1804.02767), by one tower for
the class and one for the box (Ge 2021, YOLOX: https://arxiv.org/abs/2107.08430). A box is four distances from a cell's
centre (Tian 2019: https://arxiv.org/abs/1904.01355), learnt by generalised IoU (Rezatofighi 2019:
https://arxiv.org/abs/1902.09630).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import (
    Conv2dNormActivation,
    batched_nms,
    box_iou,
    clip_boxes_to_image,
    generalized_box_iou_loss,
)

from vision_lab.core.arguments import MAX_WIDTH, Count, Fraction, Range
from vision_lab.core.batch import BoxTargets, Detections
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.fpn import BackboneWithFPN

OBJECT_SIZE_IN_STRIDES = 4.0
"""The side of the objects that a map is for, in its strides."""

CENTER_SAMPLING_RADIUS = 1.5
"""Cells so near to an object's centre, in strides, answer for it (Tian 2019, the journal's centre sampling)."""

BOX_WEIGHT = 2.0
"""What the boxes' loss counts, next to 1 for being there and 1 for the class."""

NORM_GROUPS = 8
"""Of the normalisation: unlike a batch's it does not mind small batches, and maps of several strides share it."""

PRE_NMS_TOP_K = 1000
"""The surest so many cells and classes of a picture are looked at."""

MAX_LOG_DISTANCE = 10.0
"""Of a distance's logarithm, in strides: what is more would overflow."""


class YoloOutputs(NamedTuple):
    """What all cells of all maps say.

    Attributes:
        there: (N, P) logits.
        classes: (N, P, K) logits.
        boxes: (N, P, 4) left, top, right, bottom in pixels.
        centres: (P, 2) x and y in pixels.
        strides: (P,) in pixels.
        size: (height, width) of the pictures.
    """

    objectness: Tensor
    classes: Tensor
    boxes: Tensor
    centres: Tensor
    strides: Tensor
    size: tuple[int, int]


class Yolo(nn.Module):
    """See ``yolo``."""

    def __init__(
        self,
        backbone: BackboneWithFPN,
        classes: int,
        *,
        depth: int,
        score_threshold: float,
        nms_threshold: float,
        detections_per_image: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = classes
        width = backbone.out_channels
        self.class_tower, self.box_tower = _tower(width, depth), _tower(width, depth)
        self.class_scores = nn.Conv2d(width, classes, 1)
        self.box_scores = nn.Conv2d(width, 5, 1)  # four distances, and whether there is an object
        for layer in (self.class_scores, self.box_scores):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # it has one
        nn.init.constant_(self.box_scores.bias[4:], -3.0)  # type: ignore[index]  # few cells have one (Lin 2017, 4.1)
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.detections_per_image = detections_per_image

    def forward(self, images: Tensor) -> YoloOutputs:
        found: list[tuple[Tensor, ...]] = []
        for each, stride in zip(self.backbone(images).values(), self.backbone.strides, strict=True):
            classes = self.class_scores(self.class_tower(each)).float().flatten(2).transpose(1, 2)
            said = self.box_scores(self.box_tower(each)).float().flatten(2).transpose(1, 2)
            centres = _centres(each, stride)
            distances = said[..., :4].clamp(max=MAX_LOG_DISTANCE).exp() * stride
            boxes = torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1)
            found.append(
                (
                    said[..., 4],
                    classes,
                    boxes,
                    centres,
                    centres.new_full((len(centres),), float(stride)),
                )
            )
        there, classes, boxes = (torch.cat([each[k] for each in found], dim=1) for k in range(3))
        centres, strides = (torch.cat([each[k] for each in found]) for k in (3, 4))
        return YoloOutputs(
            there, classes, boxes, centres, strides, (images.shape[-2], images.shape[-1])
        )

    def losses(self, outputs: YoloOutputs, targets: Sequence[BoxTargets]) -> dict[str, Tensor]:
        """Of being there, over all cells; of class and box, over those that answer for an object; per such cell."""
        wanted = torch.zeros_like(outputs.objectness)
        counted = torch.ones_like(outputs.objectness)
        said_boxes, said_classes, boxes, labels = [], [], [], []
        for place, target in enumerate(targets):
            counted[place] = ~_centers_in_boxes(outputs.centres, target[target.crowd].boxes).any(
                dim=1
            )
            single = target[~target.crowd]
            owners = assign_targets(single.boxes, outputs.centres, outputs.strides)
            cells = (owners >= 0).nonzero()[:, 0]
            owned = single[owners[cells]]
            counted[place, cells] = 1.0
            said = outputs.boxes[place, cells]
            overlap = (
                box_iou(said.detach(), owned.boxes).diagonal() if len(cells) else said.new_zeros(0)
            )
            wanted[place, cells] = overlap
            said_boxes.append(said)
            said_classes.append(outputs.classes[place, cells])
            boxes.append(owned.boxes)
            labels.append(owned.labels)
        positives = max(1, sum(map(len, labels)))
        there = F.binary_cross_entropy_with_logits(
            outputs.objectness, wanted, weight=counted, reduction="sum"
        )
        classes = F.cross_entropy(torch.cat(said_classes), torch.cat(labels), reduction="sum")
        placed = generalized_box_iou_loss(torch.cat(said_boxes), torch.cat(boxes), reduction="sum")
        return {
            "there": there / positives,
            "class": classes / positives,
            "box": BOX_WEIGHT * placed / positives,
        }

    def decode(self, outputs: YoloOutputs) -> list[Detections]:
        """What was found in each picture; a score is the probability of an object there times that of its class."""
        scores = outputs.objectness.sigmoid()[..., None] * outputs.classes.softmax(dim=-1)
        return [
            self._decoded(*each, outputs.size) for each in zip(scores, outputs.boxes, strict=True)
        ]

    def _decoded(self, scores: Tensor, boxes: Tensor, size: tuple[int, int]) -> Detections:
        flat = scores.flatten()
        sure = (flat > self.score_threshold).nonzero()[:, 0]
        best, order = flat[sure].topk(min(PRE_NMS_TOP_K, len(sure)))
        cells, labels = sure[order] // self.classes, sure[order] % self.classes
        clipped = clip_boxes_to_image(boxes[cells], size)
        kept = batched_nms(clipped, best, labels, self.nms_threshold)[: self.detections_per_image]
        return Detections(clipped[kept], labels[kept], best[kept])


def yolo(
    backbone: Backbone,
    spec: DataSpec,
    *,
    channels: Annotated[int, Range(ge=1, le=MAX_WIDTH, multiple_of=NORM_GROUPS)],
    num_convs: Annotated[int, Range(ge=1, le=64)],
    score_threshold: Fraction,
    nms_threshold: Fraction,
    detections_per_image: Count,
) -> nn.Module:
    """Maps of stride 8 and more, or the two coarsest, of one width by a feature pyramid, and two towers for all maps.

    Args:
        backbone: any with two maps.
        spec: its number of classes is used.
        width: channels of maps and towers, a multiple of 8.
        depth: convolutions of a tower.
        score_threshold: what is less sure is not told.
        nms_threshold: of two of a class that overlap more (IoU), the less sure is dropped.
        detections_per_image: the surest so many are told.

    Raises:
        ConfigurationError: where the backbone has a single map.
    """
    return Yolo(
        BackboneWithFPN(backbone, finest=8, width=channels, extra=None, coarser=[]),
        spec.num_classes,
        depth=num_convs,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        detections_per_image=detections_per_image,
    )


def assign_targets(boxes: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """The object that each cell answers for.

    An object belongs to the map whose stride is nearest to a quarter of its side; there the cells near its centre and
    inside of it answer for it, or else the nearest one. Of two objects the smaller is taken.

    Args:
        boxes: (n, 4) in pixels.
        centres: (P, 2) x and y of the cells.
        strides: (P,) of their maps.

    Returns:
        (P,) rows of ``boxes``; -1 where there is none.
    """
    if not len(boxes):
        return torch.full((len(centres),), -1, device=centres.device)
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
    areas = sides.prod(dim=1)
    levels = strides.unique()
    nearest = (
        (levels.log2() - (areas.sqrt() / OBJECT_SIZE_IN_STRIDES).log2()[:, None])
        .abs()
        .argmin(dim=1)
    )
    belongs = strides[:, None] == levels[nearest]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    away = (centres[:, None] - middle).abs().amax(dim=2) / strides[:, None]
    answers = belongs & (away < CENTER_SAMPLING_RADIUS) & _centers_in_boxes(centres, boxes)
    closest = away.where(belongs, torch.inf).argmin(dim=0)
    answers[closest, torch.arange(len(boxes), device=boxes.device)] |= ~answers.any(dim=0)
    smallest, owner = areas.expand_as(answers).where(answers, torch.inf).min(dim=1)
    return owner.where(smallest < torch.inf, -1)


def _centers_in_boxes(centres: Tensor, boxes: Tensor) -> Tensor:
    """(P, n), whether each cell's centre lies in each box."""
    return ((centres[:, None] > boxes[:, :2]) & (centres[:, None] < boxes[:, 2:])).all(dim=2)


def _centres(like: Tensor, stride: int) -> Tensor:
    """(cells, 2): x and y in pixels of a map's cells, row by row."""
    rows, columns = (torch.arange(side, device=like.device) for side in like.shape[-2:])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return (torch.stack([x, y], dim=-1).flatten(0, 1) + 0.5) * stride


def _tower(width: int, depth: int) -> nn.Module:
    norm = partial(nn.GroupNorm, NORM_GROUPS)
    layers = [
        Conv2dNormActivation(width, width, norm_layer=norm, activation_layer=nn.SiLU)
        for _ in range(depth)
    ]
    return nn.Sequential(*layers)
