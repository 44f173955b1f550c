"""torchvision's detectors, split into what is computed of pictures and what is made of it: losses, and detections.

Theirs resize and normalise pictures inside, and give losses or detections by the mode they are in. Here size and
normalisation were decided before, and one pass gives both. Their labels begin at 1, and 0 is the background; ours at 0.
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

Targets = list[dict[str, Tensor]]


class FasterRCNN(detection.FasterRCNN):
    """See ``torchvision.models.detection.FasterRCNN``, whose keys and numbers it has."""

    def __init__(self, backbone: nn.Module, num_classes: int, **arguments: Any) -> None:
        super().__init__(backbone, num_classes + 1, **arguments)
        self.transform = nn.Identity()

    def forward(self, images: Tensor) -> tuple[ImageList, dict[str, Tensor]]:
        return _image_list(images), {
            name: each.float() for name, each in self.backbone(images).items()
        }

    def losses(
        self, outputs: tuple[ImageList, dict[str, Tensor]], targets: Sequence[BoxTargets]
    ) -> dict[str, Tensor]:
        """Of the proposals and of the boxes, each for class and place."""
        pictures, maps = outputs
        wanted = to_torchvision_targets(targets)
        with _full_precision(pictures), _training_flag(self.rpn, self.roi_heads, training=True):
            proposals, proposed = self.rpn(pictures, maps, wanted)
            _, found = self.roi_heads(maps, proposals, pictures.image_sizes, wanted)
        return {**proposed, **found}

    def decode(self, outputs: tuple[ImageList, dict[str, Tensor]]) -> list[Detections]:
        """What was found in each picture."""
        pictures, maps = outputs
        with _full_precision(pictures), _training_flag(self.rpn, self.roi_heads, training=False):
            proposals, _ = self.rpn(pictures, maps)
            found, _ = self.roi_heads(maps, proposals, pictures.image_sizes)
        return from_torchvision_detections(found)


class DenseOutputs(NamedTuple):
    """What a detector of one stage says at each of its anchors.

    Attributes:
        scores: name: (N, anchors, ...).
        anchors: (anchors, 4) in pixels for each picture.
        cells: the cells of each map.
        sizes: (height, width) of each picture.
    """

    scores: dict[str, Tensor]
    anchors: list[Tensor]
    num_cells: list[int]
    sizes: list[tuple[int, int]]

    @property
    def by_level(self) -> tuple[dict[str, list[Tensor]], list[list[Tensor]]]:
        """Scores and anchors of each map."""
        each = len(self.anchors[0]) // sum(self.num_cells)
        counts = [cells * each for cells in self.num_cells]
        scores = {name: list(score.split(counts, dim=1)) for name, score in self.scores.items()}
        return scores, [list(anchors.split(counts)) for anchors in self.anchors]


class OneStageMixin:
    """What torchvision's detectors of one stage have in common; they bring what is named here."""

    backbone: Any
    head: Any
    anchor_generator: Any
    proposal_matcher: Any
    compute_loss: Any
    postprocess_detections: Any

    def forward(self, images: Tensor) -> DenseOutputs:
        pictures, maps = _image_list(images), list(self.backbone(images).values())
        scores = {name: score.float() for name, score in self.head(maps).items()}
        cells = [each.shape[-2] * each.shape[-1] for each in maps]
        anchors = self.anchor_generator(pictures, [each.float() for each in maps])
        return DenseOutputs(scores, anchors, cells, pictures.image_sizes)

    def decode(self, outputs: DenseOutputs) -> list[Detections]:
        """What was found in each picture."""
        return from_torchvision_detections(
            self.postprocess_detections(*outputs.by_level, outputs.sizes)
        )


class RetinaNet(OneStageMixin, detection.RetinaNet):
    """See ``torchvision.models.detection.RetinaNet``, whose keys and numbers it has."""

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        head: Callable[[int], nn.Module],
        **arguments: Any,
    ) -> None:
        super().__init__(backbone, num_classes + 1, head=head(num_classes + 1), **arguments)
        self.transform = nn.Identity()

    def losses(self, outputs: DenseOutputs, targets: Sequence[BoxTargets]) -> dict[str, Tensor]:
        """For class and place."""
        return self.compute_loss(to_torchvision_targets(targets), outputs.scores, outputs.anchors)


class FCOS(OneStageMixin, detection.FCOS):
    """See ``torchvision.models.detection.FCOS``, whose keys and numbers it has."""

    def __init__(self, backbone: nn.Module, num_classes: int, **arguments: Any) -> None:
        super().__init__(backbone, num_classes + 1, **arguments)
        self.transform = nn.Identity()

    def losses(self, outputs: DenseOutputs, targets: Sequence[BoxTargets]) -> dict[str, Tensor]:
        """For class, place and centre."""
        return self.compute_loss(
            to_torchvision_targets(targets), outputs.scores, outputs.anchors, outputs.num_cells
        )


class SSD(OneStageMixin, detection.ssd.SSD):
    """See ``torchvision.models.detection.ssd.SSD``, whose keys and numbers it has."""

    def __init__(self, backbone: nn.Module, num_classes: int, **arguments: Any) -> None:
        super().__init__(backbone=backbone, num_classes=num_classes + 1, **arguments)
        self.transform = nn.Identity()

    def losses(self, outputs: DenseOutputs, targets: Sequence[BoxTargets]) -> dict[str, Tensor]:
        """For class and place."""
        wanted = to_torchvision_targets(targets)
        matched = [
            self.proposal_matcher(box_iou(each["boxes"], anchors))
            if len(each["boxes"])
            else torch.full((len(anchors),), -1, device=anchors.device)
            for each, anchors in zip(wanted, outputs.anchors, strict=True)
        ]
        return self.compute_loss(wanted, outputs.scores, outputs.anchors, matched)

    def decode(self, outputs: DenseOutputs) -> list[Detections]:
        """What was found in each picture."""
        return from_torchvision_detections(
            self.postprocess_detections(outputs.scores, outputs.anchors, outputs.sizes)
        )


def postprocess_arguments(
    score_threshold: float, nms_threshold: float, detections_per_image: int
) -> dict[str, float]:
    """What is told of all that was found, by torchvision's names.

    Raises:
        ConfigurationError: where a number is out of range.
    """
    return {
        "score_thresh": score_threshold,
        "nms_thresh": nms_threshold,
        "detections_per_img": detections_per_image,
    }


def to_torchvision_targets(targets: Sequence[BoxTargets]) -> Targets:
    """The objects to learn as torchvision wants them: none that are crowds or without area; labels from 1."""
    wanted = []
    for target in targets:
        kept = target[~target.crowd & (target.boxes[:, 2:] > target.boxes[:, :2]).all(dim=1)]
        wanted.append({"boxes": kept.boxes, "labels": kept.labels + 1})
    return wanted


def from_torchvision_detections(found: Sequence[dict[str, Tensor]]) -> list[Detections]:
    """torchvision's detections as ours: labels from 0, those of the background, which some can say, left out."""
    made = [Detections(each["boxes"], each["labels"] - 1, each["scores"]) for each in found]
    return [each[each.labels >= 0] for each in made]


def _image_list(images: Tensor) -> ImageList:
    height, width = images.shape[-2:]
    return ImageList(images, [(height, width)] * len(images))


def _full_precision(pictures: ImageList) -> torch.autocast:
    """Boxes in single precision: in half, places above 512 pixels are 4 apart."""
    return torch.autocast(pictures.tensors.device.type, enabled=False)


@contextmanager
def _training_flag(*modules: nn.Module, training: bool) -> Iterator[None]:
    """Let modules give losses or detections, without a change of the layers in them."""
    before = [module.training for module in modules]
    for module in modules:
        module.training = training
    yield
    for module, mode in zip(modules, before, strict=True):
        module.training = mode
