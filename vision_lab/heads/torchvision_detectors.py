"""torchvision's detectors, split into a forward pass and what is computed from it.

torchvision's detectors resize and normalize images themselves, and return losses or detections
depending on their mode. Here images are already resized and normalized, and losses and detections
are computed from the same forward pass. torchvision's labels start at 1, with 0 for the background;
ours start at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from vision_lab.core.batch import BoxTargets, Detections

TorchvisionTargets = list[dict[str, Tensor]]


class TwoStageMixin:
    """The forward pass, losses and decoding of detectors that classify proposals."""

    backbone: Any
    rpn: Any
    roi_heads: Any

    def forward(self, images: Tensor) -> tuple[ImageList, dict[str, Tensor]]:
        features = {name: level.float() for name, level in self.backbone(images).items()}
        return _to_image_list(images), features

    def losses(
        self, outputs: tuple[ImageList, dict[str, Tensor]], targets: Sequence[BoxTargets]
    ) -> dict[str, Tensor]:
        """Compute the classification and regression losses of proposals and of detections.

        Args:
            outputs: images and features, as returned by ``forward``.
            targets: ground truth of each image.
        """
        images, features = outputs
        converted = to_torchvision_targets(targets)
        with _full_precision(images), _training_flag(self.rpn, self.roi_heads, training=True):
            proposals, rpn_losses = self.rpn(images, features, converted)
            _, roi_losses = self.roi_heads(features, proposals, images.image_sizes, converted)
        return {**rpn_losses, **roi_losses}

    def decode(self, outputs: tuple[ImageList, dict[str, Tensor]]) -> list[Detections]:
        """Compute the detections of each image."""
        images, features = outputs
        with _full_precision(images), _training_flag(self.rpn, self.roi_heads, training=False):
            proposals, _ = self.rpn(images, features)
            detections, _ = self.roi_heads(features, proposals, images.image_sizes)
        return from_torchvision_detections(detections)


class FasterRCNN(TwoStageMixin, detection.FasterRCNN):
    """``torchvision.models.detection.FasterRCNN``, with its keys and numbers.

    Args:
        backbone: maps images to a feature pyramid.
        num_classes: number of classes, without the background.
        arguments: arguments of torchvision's class.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        **arguments: Any,
    ) -> None:
        super().__init__(backbone, num_classes + 1, **arguments)
        self.transform = nn.Identity()


class DenseOutputs(NamedTuple):
    """Outputs of a one-stage detector.

    Attributes:
        scores: outputs of the head by name, (N, num_anchors, ...).
        anchors: anchors of each image, (num_anchors, 4) in pixels.
        num_cells: number of grid cells of each feature map.
        image_sizes: (height, width) of each image.
    """

    scores: dict[str, Tensor]
    anchors: list[Tensor]
    num_cells: list[int]
    image_sizes: list[tuple[int, int]]

    def split_levels(self) -> tuple[dict[str, list[Tensor]], list[list[Tensor]]]:
        """Split scores and anchors by feature map."""
        anchors_per_cell = len(self.anchors[0]) // sum(self.num_cells)
        counts = [cells * anchors_per_cell for cells in self.num_cells]
        scores = {name: list(score.split(counts, dim=1)) for name, score in self.scores.items()}
        return scores, [list(anchors.split(counts)) for anchors in self.anchors]


class OneStageMixin:
    """The forward pass and decoding that torchvision's one-stage detectors share."""

    backbone: Any
    head: Any
    anchor_generator: Any
    proposal_matcher: Any
    compute_loss: Any
    postprocess_detections: Any

    def forward(self, images: Tensor) -> DenseOutputs:
        image_list, features = _to_image_list(images), list(self.backbone(images).values())
        scores = {name: score.float() for name, score in self.head(features).items()}
        num_cells = [level.shape[-2] * level.shape[-1] for level in features]
        anchors = self.anchor_generator(image_list, [level.float() for level in features])
        return DenseOutputs(scores, anchors, num_cells, image_list.image_sizes)

    def decode(self, outputs: DenseOutputs) -> list[Detections]:
        """Compute the detections of each image."""
        detections = self.postprocess_detections(*outputs.split_levels(), outputs.image_sizes)
        return from_torchvision_detections(detections)


class RetinaNet(OneStageMixin, detection.RetinaNet):
    """``torchvision.models.detection.RetinaNet``, with its keys and numbers.

    Args:
        backbone: maps images to a feature pyramid.
        num_classes: number of classes, without the background.
        make_head: creates the head for a number of classes, with the background.
        arguments: arguments of torchvision's class.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        make_head: Callable[[int], nn.Module],
        **arguments: Any,
    ) -> None:
        head = make_head(num_classes + 1)
        super().__init__(backbone, num_classes + 1, head=head, **arguments)
        self.transform = nn.Identity()

    def losses(
        self,
        outputs: DenseOutputs,
        targets: Sequence[BoxTargets],
    ) -> dict[str, Tensor]:
        """Compute the classification and regression losses."""
        return self.compute_loss(to_torchvision_targets(targets), outputs.scores, outputs.anchors)


class FCOS(OneStageMixin, detection.FCOS):
    """``torchvision.models.detection.FCOS``, with its keys and numbers.

    Args:
        backbone: maps images to a feature pyramid.
        num_classes: number of classes, without the background.
        arguments: arguments of torchvision's class.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        **arguments: Any,
    ) -> None:
        super().__init__(backbone, num_classes + 1, **arguments)
        self.transform = nn.Identity()

    def losses(
        self,
        outputs: DenseOutputs,
        targets: Sequence[BoxTargets],
    ) -> dict[str, Tensor]:
        """Compute the classification, regression and centerness losses."""
        return self.compute_loss(
            to_torchvision_targets(targets), outputs.scores, outputs.anchors, outputs.num_cells
        )


class SSD(OneStageMixin, detection.ssd.SSD):
    """``torchvision.models.detection.ssd.SSD``, with its keys and numbers.

    Args:
        backbone: maps images to feature maps.
        num_classes: number of classes, without the background.
        arguments: arguments of torchvision's class.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        **arguments: Any,
    ) -> None:
        super().__init__(
            backbone=backbone,
            num_classes=num_classes + 1,
            **arguments,
        )
        self.transform = nn.Identity()

    def losses(
        self,
        outputs: DenseOutputs,
        targets: Sequence[BoxTargets],
    ) -> dict[str, Tensor]:
        """Compute the classification and regression losses."""
        converted = to_torchvision_targets(targets)
        matched = []
        for target, anchors in zip(converted, outputs.anchors, strict=True):
            if len(target["boxes"]):
                matched.append(self.proposal_matcher(box_iou(target["boxes"], anchors)))
            else:
                matched.append(torch.full((len(anchors),), -1, device=anchors.device))
        return self.compute_loss(converted, outputs.scores, outputs.anchors, matched)

    def decode(self, outputs: DenseOutputs) -> list[Detections]:
        """Compute the detections of each image."""
        detections = self.postprocess_detections(
            outputs.scores, outputs.anchors, outputs.image_sizes
        )
        return from_torchvision_detections(detections)


def postprocess_arguments(
    score_threshold: float, nms_threshold: float, detections_per_image: int
) -> dict[str, float]:
    """Return the limits of detections under torchvision's names.

    Args:
        score_threshold: minimum score.
        nms_threshold: IoU threshold of non-maximum suppression.
        detections_per_image: maximum number of detections.
    """
    return {
        "score_thresh": score_threshold,
        "nms_thresh": nms_threshold,
        "detections_per_img": detections_per_image,
    }


def to_torchvision_targets(targets: Sequence[BoxTargets]) -> TorchvisionTargets:
    """Convert targets for torchvision: without crowds and empty boxes, with labels from 1."""
    converted = []
    for target in targets:
        has_area = (target.boxes[:, 2:] > target.boxes[:, :2]).all(dim=1)
        kept = target[~target.crowd & has_area]
        converted.append({"boxes": kept.boxes, "labels": kept.labels + 1})
    return converted


def from_torchvision_detections(detections: Sequence[dict[str, Tensor]]) -> list[Detections]:
    """Convert torchvision's detections: with labels from 0, without those of the background."""
    converted = []
    for entry in detections:
        labels = entry["labels"] - 1
        image_detections = Detections(entry["boxes"], labels, entry["scores"])
        converted.append(image_detections[labels >= 0])
    return converted


def _to_image_list(images: Tensor) -> ImageList:
    height, width = images.shape[-2:]
    return ImageList(images, [(height, width)] * len(images))


def _full_precision(images: ImageList) -> torch.autocast:
    """Disable autocast: in half precision, coordinates above 512 are multiples of 0.5 or more."""
    return torch.autocast(images.tensors.device.type, enabled=False)


@contextmanager
def _training_flag(*modules: nn.Module, training: bool) -> Iterator[None]:
    """Set whether modules return losses or detections, without changing the layers in them."""
    flags = [module.training for module in modules]
    for module in modules:
        module.training = training
    yield
    for module, flag in zip(modules, flags, strict=True):
        module.training = flag
