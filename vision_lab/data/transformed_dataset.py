"""From a sample of a data set to what a batch is made of: read, checked, augmented, fitted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from vision_lab.core import signals
from vision_lab.core.batch import Batch, Objects, Sample
from vision_lab.core.errors import Unreadable, UnreadableError
from vision_lab.core.protocols import Dataset
from vision_lab.core.spec import DataSpec
from vision_lab.data.image_io import UnreadablePictureError, as_picture, read_picture
from vision_lab.data.targets import _kind
from vision_lab.data.transforms import Joined
from vision_lab.training.seeding import reseed


class Examples(torch.utils.data.Dataset[tuple[Tensor, Any, Sample] | Unreadable]):
    """Reads, augments and fits one sample, its random numbers seeded by (seed, epoch, index)."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        spec: DataSpec,
        transforms: Sequence[v2.Transform],
        seed: int,
        relabel: Sequence[int] | None,
        max_pixels: int,
        whole: bool = False,
    ) -> None:
        self.target = _kind(spec, relabel)
        self.max_pixels = max_pixels
        self.whole = whole
        self.dataset = dataset
        self.spec = spec
        self.transforms = transforms
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Any, Sample] | Unreadable:
        epoch, index = key
        reseed(self.seed, epoch, index)
        read = self.read(index)
        if isinstance(read, Unreadable):
            return read
        picture, target, path = read
        sample = Sample(index, path, (picture.shape[-2], picture.shape[-1]), self.target.shown(picture))
        for transform in self.transforms:
            if isinstance(transform, Joined):
                picture, target = transform(*self.target.fit(picture, target), self._others)
            else:
                picture, target = transform(picture, target)
        if not self.whole and picture.shape[-2:] != self.spec.image_size:
            picture, target = self.target.fit(picture, target)
        return picture.as_subclass(Tensor), self.target.finished(target, trained=bool(self.transforms)), sample

    def read(self, index: int) -> tuple[tv_tensors.Image, Any, str | None] | Unreadable:
        """A picture as its file has it, its target, and the file."""
        try:
            source, known = self.dataset[index]
        except UnreadableError as error:
            return error.unreadable
        path = str(source) if isinstance(source, str | Path) else None
        try:
            reading = read_picture if path else as_picture
            image = reading(path or source, channels=self.spec.channels, max_pixels=self.max_pixels)
            return tv_tensors.Image(image), self.target(known, image), path
        except UnreadablePictureError as error:
            return Unreadable(path or f"sample {index}", str(error))

    def _others(self, count: int) -> list[tuple[tv_tensors.Image, Any]]:
        """Other samples by chance, fitted; those that cannot be read are met when it is their turn."""
        read = [self.read(index) for index in torch.randint(len(self), (count,)).tolist()]
        return [self.target.fit(each[0], each[1]) for each in read if not isinstance(each, Unreadable)]


def begin_worker(_: int) -> None:
    """A reading process leaves signals to the one that began it."""
    signals.leave_to_parent()


def collate(examples: Sequence[tuple[Tensor, Any, Sample] | Unreadable]) -> Batch:
    """One batch of what could be read; the rest is named in it."""
    unreadable = [example for example in examples if isinstance(example, Unreadable)]
    readable = [example for example in examples if not isinstance(example, Unreadable)]
    if not readable:
        return Batch(torch.empty(0, dtype=torch.uint8), torch.empty(0, dtype=torch.int64), [], unreadable)
    images, targets, samples = zip(*readable, strict=True)
    together = list(targets) if isinstance(targets[0], Objects) else torch.stack(targets)
    return Batch(torch.stack(images), together, samples, unreadable)
