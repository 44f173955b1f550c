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
from vision_lab.core.batch import Batch, BoxTargets, Sample
from vision_lab.core.errors import UnreadableFile, UnreadableFileError
from vision_lab.core.protocols import Dataset
from vision_lab.core.spec import DataSpec
from vision_lab.data.image_io import InvalidImageError, read_image, to_uint8_image
from vision_lab.data.targets import _make_target_handler
from vision_lab.data.transforms import MultiSampleTransform
from vision_lab.training.seeding import seed_all


class TransformedDataset(torch.utils.data.Dataset[tuple[Tensor, Any, Sample] | UnreadableFile]):
    """Reads, augments and fits one sample, its random numbers seeded by (seed, epoch, index)."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        spec: DataSpec,
        transforms: Sequence[v2.Transform],
        seed: int,
        label_map: Sequence[int] | None,
        max_pixels: int,
        whole: bool = False,
    ) -> None:
        self.target = _make_target_handler(spec, label_map)
        self.max_pixels = max_pixels
        self.keep_size = whole
        self.dataset = dataset
        self.spec = spec
        self.transforms = transforms
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Any, Sample] | UnreadableFile:
        epoch, index = key
        seed_all(self.seed, epoch, index)
        read = self.read(index)
        if isinstance(read, UnreadableFile):
            return read
        picture, target, path = read
        sample = Sample(
            index, path, (picture.shape[-2], picture.shape[-1]), self.target.content_size(picture)
        )
        for transform in self.transforms:
            if isinstance(transform, MultiSampleTransform):
                picture, target = transform(*self.target.resize(picture, target), self._others)
            else:
                picture, target = transform(picture, target)
        if not self.keep_size and picture.shape[-2:] != self.spec.image_size:
            picture, target = self.target.resize(picture, target)
        return (
            picture.as_subclass(Tensor),
            self.target.to_batch(target, trained=bool(self.transforms)),
            sample,
        )

    def read(self, index: int) -> tuple[tv_tensors.Image, Any, str | None] | UnreadableFile:
        """A picture as its file has it, its target, and the file."""
        try:
            source, known = self.dataset[index]
        except UnreadableFileError as error:
            return error.unreadable
        path = str(source) if isinstance(source, str | Path) else None
        try:
            reading = read_image if path else to_uint8_image
            image = reading(path or source, channels=self.spec.channels, max_pixels=self.max_pixels)
            return tv_tensors.Image(image), self.target(known, image), path
        except InvalidImageError as error:
            return UnreadableFile(path or f"sample {index}", str(error))

    def _others(self, count: int) -> list[tuple[tv_tensors.Image, Any]]:
        """Other samples by chance, fitted; those that cannot be read are met when it is their turn."""
        read = [self.read(index) for index in torch.randint(len(self), (count,)).tolist()]
        return [
            self.target.resize(each[0], each[1])
            for each in read
            if not isinstance(each, UnreadableFile)
        ]


def init_worker(_: int) -> None:
    """A reading process leaves signals to the one that began it."""
    signals.ignore_signals_in_worker()


def collate(examples: Sequence[tuple[Tensor, Any, Sample] | UnreadableFile]) -> Batch:
    """One batch of what could be read; the rest is named in it."""
    unreadable = [example for example in examples if isinstance(example, UnreadableFile)]
    readable = [example for example in examples if not isinstance(example, UnreadableFile)]
    if not readable:
        return Batch(
            torch.empty(0, dtype=torch.uint8), torch.empty(0, dtype=torch.int64), [], unreadable
        )
    images, targets, samples = zip(*readable, strict=True)
    together = list(targets) if isinstance(targets[0], BoxTargets) else torch.stack(targets)
    return Batch(torch.stack(images), together, samples, unreadable)
