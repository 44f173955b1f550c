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
    """Where a picture of a batch comes from."""

    index: int
    """Its place in the split."""
    path: str | None
    """Its file, where it has one."""
    size: tuple[int, int]
    """(height, width) in pixels of the file, before any resizing."""
    content_size: tuple[int, int] | None = None
    """(height, width) in pixels of the part of the batch's picture, from its top left, that holds the file's whole
    picture; None where it is not known."""


@dataclass(frozen=True)
class BoxTargets:
    """What is to be found in one picture, a row for each object.

    Attributes:
        boxes: (n, 4) float32, left, top, right and bottom in pixels of the batch's picture.
        labels: (n,) int64 from 0.
        crowd: (n,) bool: a region of many objects, or one too well hidden: not learnt, and what is found there is no
            mistake.
        difficult: (n,) bool: learnt, but measured like a crowd.
        area: (n,) float32 in pixels of the file, which says whether it counts as small, medium or large.
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    difficult: Tensor
    area: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> BoxTargets:
        """Some of the rows, all columns together."""
        return self._each(lambda column: column[rows])

    def to(self, device: torch.device, *, non_blocking: bool = False) -> BoxTargets:
        """The same on another device."""
        return self._each(lambda column: column.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> BoxTargets:
        """The same in page-locked memory."""
        return self._each(lambda column: column.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> BoxTargets:
        columns = {name: change(column) for name, column in vars(self).items()}
        return replace(self, **columns)


@dataclass(frozen=True)
class Detections:
    """What was found in one picture, a row for each object, the surest first.

    Attributes:
        boxes: (n, 4) float32, left, top, right and bottom in pixels.
        labels: (n,) int64 from 0.
        scores: (n,) float32 in [0, 1].
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> Detections:
        """Some of the rows, all columns together."""
        return Detections(self.boxes[rows], self.labels[rows], self.scores[rows])


def letterbox_size(size: tuple[int, int], into: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a picture of ``size`` made as large as fits ``into``, its shape kept."""
    scale = min(into[0] / size[0], into[1] / size[1])
    return max(1, min(round(size[0] * scale), into[0])), max(1, min(round(size[1] * scale), into[1]))


@dataclass
class Batch:
    """What a loader yields and a task's step takes.

    Attributes:
        images: (N, C, H, W) uint8.
        targets: (N,) int64 labels, -1 where they are not known; or (N, H, W) uint8 masks of classes, 255 where they
            are not known or not to be counted; or N ``Objects``.
        samples: N origins.
        unreadable: the files left out of this batch.
    """

    images: Tensor
    targets: Any
    samples: Sequence[Sample]
    unreadable: Sequence[UnreadableFile] = ()

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            targets=_each(self.targets, lambda target: target.to(device, non_blocking=non_blocking)),
        )

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which a copy to a GPU need not wait. Called by the DataLoader."""
        targets = _each(self.targets, lambda target: target.pin_memory())
        return replace(self, images=self.images.pin_memory(), targets=targets)


def _each(targets: Any, change: Callable[[Any], Any]) -> Any:
    """Targets changed: one tensor, or a list with one for each picture."""
    return [change(target) for target in targets] if isinstance(targets, list) else change(targets)
