"""Batches and their targets: what a data module yields and a task trains on.

Torch is imported for type checking only, so that importing this module is fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vision_lab.core.errors import UnreadableFile

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """The origin of an image in a batch."""

    index: int
    """Index in the split."""
    path: str | None
    """Path of the image file; None for datasets without files."""
    size: tuple[int, int]
    """(height, width) of the original image in pixels."""
    content_size: tuple[int, int] | None = None
    """(height, width) of the top-left region of the batch image that shows the original image, in
    pixels; None if unknown (after augmentation)."""


@dataclass(frozen=True)
class BoxTargets:
    """The ground-truth objects of one image, one row per object.

    Attributes:
        boxes: (n, 4) float32, (x1, y1, x2, y2) in pixels of the batch image.
        labels: (n,) int64 class indices, starting at 0.
        crowd: (n,) bool; True for regions of many objects and for hardly visible ones. They are
            ignored in training, and detections in them are not counted as false positives.
        difficult: (n,) bool; True for objects that are trained on, but evaluated like crowds.
        area: (n,) float32 in pixels of the original image; decides whether an object is evaluated
            as small, medium or large.
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    difficult: Tensor
    area: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> BoxTargets:
        """Select rows by index or mask, in all columns."""
        return self._map(lambda column: column[rows])

    def to(
        self,
        device: torch.device,
        *,
        non_blocking: bool = False,
    ) -> BoxTargets:
        """Copy all columns to a device."""
        return self._map(lambda column: column.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> BoxTargets:
        """Copy all columns to page-locked memory."""
        return self._map(lambda column: column.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> BoxTargets:
        columns = {name: function(column) for name, column in vars(self).items()}
        return replace(self, **columns)


@dataclass(frozen=True)
class Detections:
    """The detected objects of one image, one row per object, in descending order of score.

    Attributes:
        boxes: (n, 4) float32, (x1, y1, x2, y2) in pixels.
        labels: (n,) int64 class indices, starting at 0.
        scores: (n,) float32 in [0, 1].
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> Detections:
        """Select rows by index or mask, in all columns."""
        return Detections(self.boxes[rows], self.labels[rows], self.scores[rows])


def letterbox_size(size: tuple[int, int], into: tuple[int, int]) -> tuple[int, int]:
    """Compute the largest size with the aspect ratio of an image that fits into another size.

    Args:
        size: (height, width) of the image in pixels.
        into: (height, width) to fit into, in pixels.

    Returns:
        (height, width) in pixels, each at least 1.
    """
    scale = min(into[0] / size[0], into[1] / size[1])
    height = min(round(size[0] * scale), into[0])
    width = min(round(size[1] * scale), into[1])
    return max(1, height), max(1, width)


@dataclass
class Batch:
    """A batch of samples, as yielded by the data loaders.

    Attributes:
        images: (N, C, H, W) uint8.
        targets: (N,) int64 class indices, -1 for unknown; or (N, H, W) uint8 masks of class
            indices, 255 for pixels to ignore; or a list of N ``BoxTargets``.
        samples: the origins of the N images.
        unreadable: files that were left out of the batch.
    """

    images: Tensor
    targets: Any
    samples: Sequence[Sample]
    unreadable: Sequence[UnreadableFile] = ()

    def to(
        self,
        device: torch.device,
        *,
        non_blocking: bool = False,
    ) -> Batch:
        """Copy images and targets to a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Copy images and targets to page-locked memory, for asynchronous copies to a GPU.

        Called by the DataLoader if ``pin_memory=True``.
        """
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Any], Any]) -> Batch:
        """Apply a function to the images and to the targets (to each, if they are a list)."""
        if isinstance(self.targets, list):
            targets: Any = [function(target) for target in self.targets]
        else:
            targets = function(self.targets)
        return replace(self, images=function(self.images), targets=targets)
