"""Targets of the samples of a dataset: checked, transformed with the image, and put into a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import clip_boxes_to_image
from torchvision.transforms import v2

from vision_lab.core.batch import BoxTargets, letterbox_size
from vision_lab.core.spec import IGNORE_INDEX, DataSpec
from vision_lab.data.image_io import InvalidImageError


class ResizedTarget:
    """What is fitted to ``spec.image_size`` without regard to its shape."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.resize = v2.Resize(size, antialias=True)  # a mask by its nearest values

    def content_size(self, image: Tensor) -> tuple[int, int]:
        """(height, width) in pixels of what the picture takes up when it is fitted."""
        return self.size

    def to_batch(self, target: Any, *, trained: bool) -> Tensor:
        """A target as it lies in a batch."""
        return target.as_subclass(Tensor)


class LabelTarget(ResizedTarget):
    """What a data set says of a picture as a label."""

    def __init__(self, size: tuple[int, int], label_map: Sequence[int] | None) -> None:
        super().__init__(size)
        self.label_map = label_map

    def __call__(self, known: Any, image: Tensor) -> Tensor:
        """() int64; -1 where it is not known.

        Raises:
            UnreadablePictureError: where it is no whole number.
        """
        if known is None:
            return torch.tensor(-1)
        label = int(known)
        if label != known:
            raise InvalidImageError(
                f"its label {known} is no whole number: the number of a class is needed"
            )
        return torch.tensor(self.label_map[label] if self.label_map else label)


class NoTarget(ResizedTarget):
    """Whatever a data set says of a picture, where nobody asks."""

    def __call__(self, known: Any, image: Tensor) -> Tensor:
        """() int64, -1."""
        return torch.tensor(-1)


class MaskTarget(ResizedTarget):
    """What a data set says of a picture as a mask, which transforms move with the picture."""

    def __init__(self, spec: DataSpec, label_map: Sequence[int] | None) -> None:
        super().__init__(spec.image_size)
        self.classes = len(label_map) if label_map else spec.num_classes
        named = label_map or range(spec.num_classes)
        self.class_lookup = torch.tensor(
            [*named, *[IGNORE_INDEX] * (256 - len(named))], dtype=torch.uint8
        )

    def __call__(self, known: Any, image: Tensor) -> tv_tensors.Mask:
        """(H, W) uint8; 255 where it is not known.

        Raises:
            UnreadablePictureError: where it does not fit the picture or the classes.
        """
        if known is None:
            return tv_tensors.Mask(torch.full(image.shape[-2:], IGNORE_INDEX, dtype=torch.uint8))
        mask = torch.as_tensor(np.asarray(known))
        if mask.is_floating_point():
            raise InvalidImageError(f"its mask holds {mask.dtype}, not whole numbers")
        if mask.shape != image.shape[-2:]:
            turned = (
                "; is one of them turned by its EXIF tag?"
                if mask.shape == image.shape[:-3:-1]
                else ""
            )
            sizes = [" x ".join(map(str, shape[::-1])) for shape in (mask.shape, image.shape[-2:])]
            raise InvalidImageError(
                f"its mask has {sizes[0]} pixels, the picture {sizes[1]}{turned}"
            )
        strange = [
            value
            for value in mask.unique().tolist()
            if not 0 <= value < self.classes and value != IGNORE_INDEX
        ]
        if strange:
            raise InvalidImageError(
                f"its mask holds {', '.join(map(str, strange))}, but data.spec.class_names has {self.classes} names "
                f"(0 to {self.classes - 1}; {IGNORE_INDEX} does not count)"
            )
        return tv_tensors.Mask(self.class_lookup[mask.int()])


class BoxTarget:
    """What a data set says of a picture as boxes, which transforms move with the picture; it is fitted whole."""

    def __init__(self, spec: DataSpec, label_map: Sequence[int] | None) -> None:
        self.size = spec.image_size
        self.label_map = torch.tensor(label_map or range(spec.num_classes))
        self.names = len(self.label_map)
        mean = spec.mean if len(spec.mean) == spec.channels else spec.mean[:1] * spec.channels
        self.fill = [255 * value for value in mean]  # 0 to the network
        self.sanitize = v2.SanitizeBoundingBoxes(min_size=1.0, labels_getter=_other_columns)

    def __call__(self, known: Any, image: Tensor) -> dict[str, Tensor]:
        """``boxes`` (n, 4) in the picture's pixels and the other columns of ``Objects``; no rows where it is not known.

        Raises:
            UnreadablePictureError: where boxes do not fit the picture or the classes.
        """
        known = known or {"boxes": (), "labels": ()}
        height, width = image.shape[-2:]
        if known.get("size") not in (None, (height, width)):
            said = " x ".join(map(str, known["size"][::-1]))
            turned = "; is it turned by its EXIF tag?" if known["size"] == (width, height) else ""
            raise InvalidImageError(
                f"its annotation is of {said} pixels, the picture has {width} x {height}{turned}"
            )
        boxes = torch.as_tensor(known["boxes"], dtype=torch.float32).reshape(-1, 4)
        boxes = (
            boxes * torch.tensor([width, height, width, height]) if known.get("relative") else boxes
        )
        labels = torch.as_tensor(known["labels"], dtype=torch.int64)
        clipped = clip_boxes_to_image(boxes, (height, width))
        sizes = clipped[:, 2:] - clipped[:, :2]
        if not (sizes > 0).all() or not (boxes - clipped).abs().le(1.0).all():
            wrong = (
                (~((sizes > 0).all(1) & (boxes - clipped).abs().le(1.0).all(1))).nonzero()[0].item()
            )
            shown = ", ".join(f"{value:g}" for value in boxes[wrong].tolist())
            raise InvalidImageError(
                f"its box [{shown}] does not lie in the picture of {width} x {height} pixels"
            )
        if len(labels) != len(boxes) or not ((labels >= 0) & (labels < self.names)).all():
            raise InvalidImageError(
                f"its {len(boxes)} boxes have labels {labels.tolist()}: each needs one of 0 to {self.names - 1}"
            )
        for name in ("crowd", "difficult", "area"):
            if name in known and len(known[name]) != len(boxes):
                raise InvalidImageError(
                    f"it has {len(boxes)} boxes and {len(known[name])} values of {name}"
                )
        nothing = torch.zeros(len(boxes), dtype=torch.bool)
        area = torch.as_tensor(
            known.get("area", torch.full((len(boxes),), torch.nan)), dtype=torch.float32
        )
        return {
            "boxes": tv_tensors.BoundingBoxes(clipped, format="XYXY", canvas_size=(height, width)),
            "labels": self.label_map[labels],
            "crowd": torch.as_tensor(known.get("crowd", nothing)).bool(),
            "difficult": torch.as_tensor(known.get("difficult", nothing)).bool(),
            "area": torch.where(area.isnan(), sizes.prod(dim=1), area),
        }

    def content_size(self, image: Tensor) -> tuple[int, int]:
        """(height, width) in pixels of what the picture takes up when it is fitted."""
        return letterbox_size((image.shape[-2], image.shape[-1]), self.size)

    def resize(self, picture: Tensor, target: Any) -> tuple[Tensor, Any]:
        """As large as fits, at the top left; the rest is of the mean colour."""
        height, width = self.content_size(picture)
        beyond = [0, 0, self.size[1] - width, self.size[0] - height]
        letterbox = v2.Compose(
            [v2.Resize([height, width], antialias=True), v2.Pad(beyond, fill=self.fill)]
        )
        return letterbox(picture, target)

    def to_batch(self, target: Any, *, trained: bool) -> BoxTargets:
        """A target as it lies in a batch; in training without what transforms have moved out of the picture."""
        columns = self.sanitize(target) if trained else target
        return BoxTargets(**{name: column.as_subclass(Tensor) for name, column in columns.items()})


def _other_columns(target: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """What goes when a box goes."""
    return tuple(column for name, column in target.items() if name != "boxes")


def _make_target_handler(
    spec: DataSpec, label_map: Sequence[int] | None
) -> NoTarget | LabelTarget | MaskTarget | BoxTarget:
    if spec.target_type == "none":
        return NoTarget(spec.image_size)
    if spec.target_type == "boxes":
        return BoxTarget(spec, label_map)
    return (
        MaskTarget(spec, label_map)
        if spec.target_type == "masks"
        else LabelTarget(spec.image_size, label_map)
    )
