"""A one-stage, anchor-free detector in the line of YOLO, small enough for a CPU.

Grid cells predict whether an object's center is near and how well they know its box (Redmon 2016,
section 2: https://arxiv.org/abs/1506.02640), at several strides (Redmon 2018:
https://arxiv.org/abs/1804.02767), with one tower for the class and one for the box (Ge 2021, YOLOX:
https://arxiv.org/abs/2107.08430). A box is four distances from a cell's center (Tian 2019:
https://arxiv.org/abs/1904.01355), trained with generalized IoU (Rezatofighi 2019:
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
from vision_lab.core.checking import check_arguments
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.fpn import BackboneWithFPN

OBJECT_SIZE_IN_STRIDES = 4.0
"""Side of the objects that a feature map is for, in its strides."""

CENTER_SAMPLING_RADIUS = 1.5
"""Cells closer to a box's center, in strides, are positive (Tian 2019, journal version)."""

BOX_LOSS_WEIGHT = 2.0
"""Weight of the box loss; objectness and classification have weight 1."""

OBJECTNESS_BIAS = -3.0
"""Initial bias of objectness, because few cells are positive (Lin 2017, section 4.1)."""

NORM_GROUPS = 8
"""Groups of group norm, which works with small batches and for maps of several strides."""

GroupedWidth = Annotated[int, Range(ge=1, le=MAX_WIDTH, multiple_of=NORM_GROUPS)]

PRE_NMS_TOP_K = 1000
"""Number of pairs of cell and class with the highest scores before non-maximum suppression."""

MAX_LOG_DISTANCE = 10.0
"""Maximum logarithm of a distance in strides, to prevent overflow."""


class YoloOutputs(NamedTuple):
    """Outputs of all P cells of all feature maps.

    Attributes:
        objectness: (N, P) logits.
        classes: (N, P, K) logits.
        boxes: (N, P, 4), (x1, y1, x2, y2) in pixels.
        centers: (P, 2), x and y in pixels.
        strides: (P,) in pixels.
        image_size: (height, width) of the images.
    """

    objectness: Tensor
    classes: Tensor
    boxes: Tensor
    centers: Tensor
    strides: Tensor
    image_size: tuple[int, int]


class Yolo(nn.Module):
    """The detector; see ``yolo`` for its arguments."""

    def __init__(
        self,
        backbone: BackboneWithFPN,
        num_classes: int,
        *,
        num_convs: int,
        score_threshold: float,
        nms_threshold: float,
        detections_per_image: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        channels = backbone.out_channels
        self.class_tower = _make_tower(channels, num_convs)
        self.box_tower = _make_tower(channels, num_convs)
        self.class_scores = nn.Conv2d(channels, num_classes, 1)
        self.box_scores = nn.Conv2d(channels, 5, 1)  # four distances and objectness
        for layer in (self.class_scores, self.box_scores):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # it has one
        nn.init.constant_(self.box_scores.bias[4:], OBJECTNESS_BIAS)  # type: ignore[index]
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.detections_per_image = detections_per_image

    def forward(self, images: Tensor) -> YoloOutputs:
        objectness, classes, boxes, centers, strides = [], [], [], [], []
        levels = zip(self.backbone(images).values(), self.backbone.strides, strict=True)
        for features, stride in levels:
            logits = self.class_scores(self.class_tower(features))
            classes.append(logits.float().flatten(2).transpose(1, 2))
            outputs = self.box_scores(self.box_tower(features)).float().flatten(2).transpose(1, 2)
            objectness.append(outputs[..., 4])
            cells = _cell_centers(features, stride)
            distances = outputs[..., :4].clamp(max=MAX_LOG_DISTANCE).exp() * stride
            corners = [cells - distances[..., :2], cells + distances[..., 2:]]
            boxes.append(torch.cat(corners, dim=-1))
            centers.append(cells)
            strides.append(cells.new_full((len(cells),), float(stride)))
        return YoloOutputs(
            torch.cat(objectness, dim=1),
            torch.cat(classes, dim=1),
            torch.cat(boxes, dim=1),
            torch.cat(centers),
            torch.cat(strides),
            (images.shape[-2], images.shape[-1]),
        )

    def losses(
        self,
        outputs: YoloOutputs,
        targets: Sequence[BoxTargets],
    ) -> dict[str, Tensor]:
        """Compute objectness over all cells, and class and box loss over positive ones.

        Each is divided by the number of positive cells. The target of objectness is the IoU of the
        predicted box, so that the score ranks boxes by quality. Cells in crowds are ignored.

        Args:
            outputs: the outputs.
            targets: ground truth of each image.
        """
        quality = torch.zeros_like(outputs.objectness)
        weight = torch.ones_like(outputs.objectness)
        predicted_boxes, predicted_classes, boxes, labels = [], [], [], []
        for image, target in enumerate(targets):
            in_crowd = _centers_in_boxes(outputs.centers, target[target.crowd].boxes).any(dim=1)
            weight[image] = ~in_crowd
            objects = target[~target.crowd]
            assigned = assign_targets(objects.boxes, outputs.centers, outputs.strides)
            positive = (assigned >= 0).nonzero()[:, 0]
            matched = objects[assigned[positive]]
            predicted = outputs.boxes[image, positive]
            weight[image, positive] = 1.0
            quality[image, positive] = _paired_iou(predicted.detach(), matched.boxes)
            predicted_boxes.append(predicted)
            predicted_classes.append(outputs.classes[image, positive])
            boxes.append(matched.boxes)
            labels.append(matched.labels)
        num_positive = max(1, sum(map(len, labels)))
        objectness_loss = F.binary_cross_entropy_with_logits(
            outputs.objectness, quality, weight=weight, reduction="sum"
        )
        class_loss = F.cross_entropy(
            torch.cat(predicted_classes), torch.cat(labels), reduction="sum"
        )
        box_loss = generalized_box_iou_loss(
            torch.cat(predicted_boxes), torch.cat(boxes), reduction="sum"
        )
        return {
            "objectness": objectness_loss / num_positive,
            "class": class_loss / num_positive,
            "box": BOX_LOSS_WEIGHT * box_loss / num_positive,
        }

    def decode(self, outputs: YoloOutputs) -> list[Detections]:
        """Compute the detections of each image; a score is objectness times class probability."""
        scores = outputs.objectness.sigmoid()[..., None] * outputs.classes.softmax(dim=-1)
        images = zip(scores, outputs.boxes, strict=True)
        return [self._decode_image(*image, outputs.image_size) for image in images]

    def _decode_image(
        self, scores: Tensor, boxes: Tensor, image_size: tuple[int, int]
    ) -> Detections:
        """Select the detections of an image from scores (P, K) and boxes (P, 4)."""
        flat = scores.flatten()
        candidates = (flat > self.score_threshold).nonzero()[:, 0]
        count = min(PRE_NMS_TOP_K, len(candidates))
        top_scores, order = flat[candidates].topk(count)
        pairs = candidates[order]
        cells, labels = pairs // self.num_classes, pairs % self.num_classes
        clipped = clip_boxes_to_image(boxes[cells], image_size)
        kept = batched_nms(clipped, top_scores, labels, self.nms_threshold)
        kept = kept[: self.detections_per_image]
        return Detections(clipped[kept], labels[kept], top_scores[kept])


@check_arguments
def yolo(
    backbone: Backbone,
    spec: DataSpec,
    *,
    channels: GroupedWidth = 96,
    num_convs: Annotated[int, Range(ge=1, le=64)] = 2,
    score_threshold: Fraction = 0.01,
    nms_threshold: Fraction = 0.5,
    detections_per_image: Count = 100,
) -> nn.Module:
    """Put the detector on a feature pyramid of stride 8 or more, with two towers for all levels.

    Args:
        backbone: a backbone with at least two stages.
        spec: spec of the data.
        channels: channels of the feature pyramid and the towers, a multiple of 8.
        num_convs: number of convolutions in each tower.
        score_threshold: detections with a lower score are discarded.
        nms_threshold: IoU above which non-maximum suppression drops the lower-scoring box of a
            class.
        detections_per_image: maximum number of detections, those with the highest scores.

    Raises:
        ConfigurationError: if the backbone has a single stage.
    """
    pyramid = BackboneWithFPN(
        backbone, min_stride=8, out_channels=channels, extra_blocks=None, extra_factors=[]
    )
    return Yolo(
        pyramid,
        spec.num_classes,
        num_convs=num_convs,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        detections_per_image=detections_per_image,
    )


def assign_targets(
    boxes: Tensor,
    centers: Tensor,
    strides: Tensor,
) -> Tensor:
    """Assign an object to each positive cell.

    An object belongs to the feature map whose stride is nearest, on a logarithmic scale, to its
    side divided by ``OBJECT_SIZE_IN_STRIDES``. In that map the cells within
    ``CENTER_SAMPLING_RADIUS`` of its center and inside its box are positive, or else the nearest
    one, so that no object goes without a cell. A cell of two objects is assigned the smaller, which
    has fewer cells.

    Args:
        boxes: (n, 4) in pixels.
        centers: (P, 2), x and y of the cells in pixels.
        strides: (P,) stride of each cell's feature map.

    Returns:
        (P,) indices of boxes; -1 for negative cells.
    """
    if not len(boxes):
        return torch.full((len(centers),), -1, device=centers.device)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6).prod(dim=1)
    levels = strides.unique()
    ideal_strides = areas.sqrt() / OBJECT_SIZE_IN_STRIDES
    level_distance = (levels.log2() - ideal_strides.log2()[:, None]).abs()
    is_own_level = strides[:, None] == levels[level_distance.argmin(dim=1)]
    box_centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    distance = (centers[:, None] - box_centers).abs().amax(dim=2) / strides[:, None]
    is_near = (distance < CENTER_SAMPLING_RADIUS) & _centers_in_boxes(centers, boxes)
    is_positive = is_own_level & is_near
    nearest_cell = distance.where(is_own_level, torch.inf).argmin(dim=0)
    has_no_cell = ~is_positive.any(dim=0)
    is_positive[nearest_cell, torch.arange(len(boxes), device=boxes.device)] |= has_no_cell
    candidate_areas = areas.expand_as(is_positive).where(is_positive, torch.inf)
    smallest_area, smallest = candidate_areas.min(dim=1)
    return smallest.where(smallest_area < torch.inf, -1)


def _paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the IoU (n,) of boxes (n, 4) with others (n, 4), row by row."""
    if not len(boxes):
        return boxes.new_zeros(0)
    return box_iou(boxes, others).diagonal()


def _centers_in_boxes(centers: Tensor, boxes: Tensor) -> Tensor:
    """Return whether each center (P, 2) is inside each box (n, 4), (P, n) bool."""
    is_right_below = centers[:, None] > boxes[:, :2]
    is_left_above = centers[:, None] < boxes[:, 2:]
    return (is_right_below & is_left_above).all(dim=2)


def _cell_centers(features: Tensor, stride: int) -> Tensor:
    """Return x and y of the cells of a feature map in pixels, row by row, (cells, 2)."""
    height, width = features.shape[-2:]
    rows = torch.arange(height, device=features.device)
    columns = torch.arange(width, device=features.device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return (torch.stack([x, y], dim=-1).flatten(0, 1) + 0.5) * stride


def _make_tower(channels: int, num_convs: int) -> nn.Module:
    norm_layer = partial(nn.GroupNorm, NORM_GROUPS)
    layers = []
    for _ in range(num_convs):
        layers.append(
            Conv2dNormActivation(
                channels, channels, norm_layer=norm_layer, activation_layer=nn.SiLU
            )
        )
    return nn.Sequential(*layers)
