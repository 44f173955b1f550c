"""Targets of samples: validated, resized with the image, and converted for a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import clip_boxes_to_image
from torchvision.transforms import v2

from vision_lab.core.batch import BoxTargets, letterbox_size
from vision_lab.core.spec import IGNORE_INDEX, UNKNOWN_LABEL, DataSpec
from vision_lab.data.image_io import InvalidImageError

CLIP_TOLERANCE = 1.0
"""Pixels by which a box may extend beyond its image before it is invalid."""


class ResizedTarget:
    """Base class of targets whose image is resized to ``spec.image_size``, whatever its shape.

    Args:
        size: (height, width) of the batch images in pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.resize = v2.Resize(size, antialias=True)  # nearest neighbor for masks

    def content_size(self, image: Tensor) -> tuple[int, int]:
        """Return the (height, width) in pixels that an image covers after resizing."""
        return self.size

    def to_batch(
        self,
        target: Any,
        *,
        is_training: bool,
    ) -> Tensor:
        """Convert a transformed target for a batch.

        Args:
            target: the target.
            is_training: whether the image was augmented.
        """
        return target.as_subclass(Tensor)


class LabelTarget(ResizedTarget):
    """Class labels.

    Args:
        size: (height, width) of the batch images in pixels.
        label_map: label of the network for each label of the data; None if they are the same.
    """

    def __init__(
        self,
        size: tuple[int, int],
        label_map: Sequence[int] | None,
    ) -> None:
        super().__init__(size)
        self.label_map = label_map

    def __call__(
        self,
        target: Any,
        size: tuple[int, int],
    ) -> Tensor:
        """Validate a label.

        Args:
            target: the label as the dataset returns it; None if it is unknown.
            size: (height, width) of the image in pixels.

        Returns:
            () int64; -1 for unknown labels.

        Raises:
            InvalidImageError: if it is not an integer.
        """
        if target is None:
            return torch.tensor(UNKNOWN_LABEL)
        label = int(target)
        if label != target:
            raise InvalidImageError(f"its label {target} is not an integer, the index of a class")
        return torch.tensor(self.label_map[label] if self.label_map else label)


class NoTarget(ResizedTarget):
    """Discards the target, for tasks that do not use it."""

    def __call__(
        self,
        target: Any,
        size: tuple[int, int],
    ) -> Tensor:
        """Return -1, () int64."""
        return torch.tensor(UNKNOWN_LABEL)


class MaskTarget(ResizedTarget):
    """Segmentation masks, which are transformed with the image.

    Args:
        spec: spec of the data.
        label_map: label of the network for each label of the data; None if they are the same.
    """

    def __init__(
        self,
        spec: DataSpec,
        label_map: Sequence[int] | None,
    ) -> None:
        super().__init__(spec.image_size)
        labels = list(label_map or range(spec.num_classes))
        self.num_labels = len(labels)
        padding = [IGNORE_INDEX] * (256 - len(labels))
        self.class_lookup = torch.tensor(labels + padding, dtype=torch.uint8)

    def __call__(
        self,
        target: Any,
        size: tuple[int, int],
    ) -> tv_tensors.Mask:
        """Validate a mask and map its labels.

        Args:
            target: the mask as the dataset returns it, (H, W); None if it is unknown.
            size: (height, width) of the image in pixels.

        Returns:
            (H, W) uint8; 255 for ignored pixels.

        Raises:
            InvalidImageError: if it does not fit the image or the classes.
        """
        if target is None:
            return tv_tensors.Mask(torch.full(size, IGNORE_INDEX, dtype=torch.uint8))
        mask = torch.as_tensor(np.asarray(target))
        if mask.is_floating_point():
            raise InvalidImageError(f"its mask contains {mask.dtype}, not integers")
        check_mask_size(tuple(mask.shape), size)
        values = mask.unique().tolist()
        unknown = []
        for value in values:
            if not 0 <= value < self.num_labels and value != IGNORE_INDEX:
                unknown.append(value)
        if unknown:
            raise InvalidImageError(
                f"its mask contains {', '.join(map(str, unknown))}, but data.spec.class_names has "
                f"{self.num_labels} names (0 to {self.num_labels - 1}; {IGNORE_INDEX} is ignored)"
            )
        return tv_tensors.Mask(self.class_lookup[mask.int()])


class BoxTarget:
    """Boxes, which are transformed with the image; the image is resized with its aspect ratio.

    Args:
        spec: spec of the data.
        label_map: label of the network for each label of the data; None if they are the same.
    """

    def __init__(
        self,
        spec: DataSpec,
        label_map: Sequence[int] | None,
    ) -> None:
        self.size = spec.image_size
        self.label_map = torch.tensor(label_map or range(spec.num_classes))
        self.num_labels = len(self.label_map)
        mean = spec.mean if len(spec.mean) == spec.channels else spec.mean[:1] * spec.channels
        self.fill = [255 * value for value in mean]  # 0 after normalization
        self.sanitize = v2.SanitizeBoundingBoxes(min_size=1.0, labels_getter=_other_columns)

    def __call__(
        self,
        target: Mapping[str, Any] | None,
        size: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Validate boxes and map their labels.

        Args:
            target: the mapping that the dataset returns (see ``Dataset``); None if it is unknown.
            size: (height, width) of the image in pixels.

        Returns:
            The columns of ``BoxTargets``, with boxes in pixels of the image.

        Raises:
            InvalidImageError: if boxes do not fit the image or the classes.
        """
        target = target or {"boxes": (), "labels": ()}
        height, width = size
        check_annotated_size(target.get("size"), size)
        boxes = torch.as_tensor(target["boxes"], dtype=torch.float32).reshape(-1, 4)
        if target.get("relative"):
            boxes = boxes * torch.tensor([width, height, width, height])
        clipped = clip_boxes_to_image(boxes, size)
        _check_boxes(boxes, clipped, size)
        labels = torch.as_tensor(target["labels"], dtype=torch.int64)
        self._check_columns(target, labels, len(boxes))
        zeros = torch.zeros(len(boxes), dtype=torch.bool)
        unknown_area = torch.full((len(boxes),), torch.nan)
        area = torch.as_tensor(target.get("area", unknown_area), dtype=torch.float32)
        box_area = (clipped[:, 2:] - clipped[:, :2]).prod(dim=1)
        return {
            "boxes": tv_tensors.BoundingBoxes(clipped, format="XYXY", canvas_size=size),
            "labels": self.label_map[labels],
            "crowd": torch.as_tensor(target.get("crowd", zeros)).bool(),
            "difficult": torch.as_tensor(target.get("difficult", zeros)).bool(),
            "area": torch.where(area.isnan(), box_area, area),
        }

    def content_size(self, image: Tensor) -> tuple[int, int]:
        """Return the (height, width) in pixels that an image covers after resizing."""
        return letterbox_size((image.shape[-2], image.shape[-1]), self.size)

    def resize(
        self,
        image: Tensor,
        target: Any,
    ) -> tuple[Tensor, Any]:
        """Resize to the largest size that fits, at the top left of an image of mean color.

        Args:
            image: the image, (C, H, W).
            target: its target.
        """
        height, width = self.content_size(image)
        padding = [0, 0, self.size[1] - width, self.size[0] - height]
        resize = v2.Resize([height, width], antialias=True)
        letterbox = v2.Compose([resize, v2.Pad(padding, fill=self.fill)])
        return letterbox(image, target)

    def to_batch(
        self,
        target: Any,
        *,
        is_training: bool,
    ) -> BoxTargets:
        """Convert a transformed target for a batch.

        Args:
            target: the columns.
            is_training: whether to drop boxes that augmentation has moved out of the image.
        """
        columns = self.sanitize(target) if is_training else target
        return BoxTargets(**{name: column.as_subclass(Tensor) for name, column in columns.items()})

    def _check_columns(
        self,
        target: Mapping[str, Any],
        labels: Tensor,
        num_boxes: int,
    ) -> None:
        is_valid = ((labels >= 0) & (labels < self.num_labels)).all()
        if len(labels) != num_boxes or not is_valid:
            raise InvalidImageError(
                f"its {num_boxes} boxes have labels {labels.tolist()}: each requires one from 0 to "
                f"{self.num_labels - 1}"
            )
        for name in ("crowd", "difficult", "area"):
            if name in target and len(target[name]) != num_boxes:
                raise InvalidImageError(
                    f"it has {num_boxes} boxes, but {len(target[name])} values of {name}"
                )


def make_target_handler(
    spec: DataSpec, label_map: Sequence[int] | None
) -> NoTarget | LabelTarget | MaskTarget | BoxTarget:
    """Create the target class for a spec.

    Args:
        spec: spec of the data.
        label_map: label of the network for each label of the data; None if they are the same.
    """
    if spec.target_type == "none":
        return NoTarget(spec.image_size)
    if spec.target_type == "labels":
        return LabelTarget(spec.image_size, label_map)
    if spec.target_type == "masks":
        return MaskTarget(spec, label_map)
    return BoxTarget(spec, label_map)


def check_mask_size(mask_size: tuple[int, ...], size: tuple[int, int]) -> None:
    """Check that a mask has the size of its image.

    Args:
        mask_size: shape of the mask.
        size: (height, width) of the image.

    Raises:
        InvalidImageError: if it has another one.
    """
    if mask_size == size:
        return
    hint = "; is one of them rotated by its EXIF tag?" if mask_size == size[::-1] else ""
    sizes = [" x ".join(map(str, shape[::-1])) for shape in (mask_size, size)]
    raise InvalidImageError(f"its mask has {sizes[0]} pixels, the image {sizes[1]}{hint}")


def check_annotated_size(annotated: tuple[int, int] | None, size: tuple[int, int]) -> None:
    """Check the image size that an annotation file gives, if it does.

    Args:
        annotated: (height, width) in the annotation; None if it gives none.
        size: (height, width) of the image.

    Raises:
        InvalidImageError: if they differ.
    """
    if annotated in (None, size):
        return
    assert annotated is not None
    hint = "; is it rotated by its EXIF tag?" if annotated == size[::-1] else ""
    shown = " x ".join(map(str, annotated[::-1]))
    raise InvalidImageError(
        f"its annotation is for {shown} pixels, the image has {size[1]} x {size[0]}{hint}"
    )


def _check_boxes(
    boxes: Tensor,
    clipped: Tensor,
    size: tuple[int, int],
) -> None:
    has_area = (clipped[:, 2:] - clipped[:, :2] > 0).all(dim=1)
    is_inside = (boxes - clipped).abs().le(CLIP_TOLERANCE).all(dim=1)
    invalid = boxes[~(has_area & is_inside)].tolist()
    if invalid:
        values = ", ".join(f"{value:g}" for value in invalid[0])
        raise InvalidImageError(
            f"its box [{values}] is not in the image of {size[1]} x {size[0]} pixels"
        )


def _other_columns(target: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Return the columns whose rows are dropped with a box."""
    columns = []
    for name, column in target.items():
        if name != "boxes":
            columns.append(column)
    return tuple(columns)
