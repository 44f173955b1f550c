"""From a sample of a data set to what a batch is made of: read, checked, augmented, fitted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from vision_lab.data.reading import UnreadablePictureError, as_picture, read_picture
from vision_lab.randomness import reseed
from vision_lab.types import IGNORE, Batch, Dataset, DataSpec, Sample, Unreadable, UnreadableError


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
        self.target = Masks(spec, relabel) if spec.target == "masks" else Labels(relabel)
        self.fit = v2.Resize(spec.image_size, antialias=True)  # a mask by its nearest values
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
        try:
            source, known = self.dataset[index]
        except UnreadableError as error:
            return error.unreadable
        path = str(source) if isinstance(source, str | Path) else None
        try:
            read = read_picture if path else as_picture
            image = read(path or source, channels=self.spec.channels, max_pixels=self.max_pixels)
            target = self.target(known, image)
        except UnreadablePictureError as error:
            return Unreadable(path or f"sample {index}", str(error))
        sample = Sample(index, path, (image.shape[-2], image.shape[-1]))
        picture: Tensor = tv_tensors.Image(image)
        for transform in self.transforms:
            picture, target = transform(picture, target)
        if not self.whole and picture.shape[-2:] != self.spec.image_size:
            picture, target = self.fit(picture, target)
        return picture.as_subclass(Tensor), target.as_subclass(Tensor), sample


class Labels:
    """What a data set says of a picture as a label."""

    def __init__(self, relabel: Sequence[int] | None) -> None:
        self.relabel = relabel

    def __call__(self, known: Any, image: Tensor) -> Tensor:
        """() int64; -1 where it is not known."""
        if known is None:
            return torch.tensor(-1)
        return torch.tensor(self.relabel[int(known)] if self.relabel else int(known))


class Masks:
    """What a data set says of a picture as a mask, which transforms move with the picture."""

    def __init__(self, spec: DataSpec, relabel: Sequence[int] | None) -> None:
        self.classes = len(relabel) if relabel else spec.num_classes
        named = relabel or range(spec.num_classes)
        self.table = torch.tensor([*named, *[IGNORE] * (256 - len(named))], dtype=torch.uint8)

    def __call__(self, known: Any, image: Tensor) -> tv_tensors.Mask:
        """(H, W) uint8; 255 where it is not known.

        Raises:
            UnreadablePictureError: where it does not fit the picture or the classes.
        """
        if known is None:
            return tv_tensors.Mask(torch.full(image.shape[-2:], IGNORE, dtype=torch.uint8))
        mask = torch.as_tensor(np.asarray(known))
        if mask.is_floating_point():
            raise UnreadablePictureError(f"its mask holds {mask.dtype}, not whole numbers")
        if mask.shape != image.shape[-2:]:
            turned = "; is one of them turned by its EXIF tag?" if mask.shape == image.shape[:-3:-1] else ""
            sizes = [" x ".join(map(str, shape[::-1])) for shape in (mask.shape, image.shape[-2:])]
            raise UnreadablePictureError(f"its mask has {sizes[0]} pixels, the picture {sizes[1]}{turned}")
        strange = [value for value in mask.unique().tolist() if not 0 <= value < self.classes and value != IGNORE]
        if strange:
            raise UnreadablePictureError(
                f"its mask holds {', '.join(map(str, strange))}, but data.spec.class_names has {self.classes} names "
                f"(0 to {self.classes - 1}; {IGNORE} does not count)"
            )
        return tv_tensors.Mask(self.table[mask.int()])


def collate(examples: Sequence[tuple[Tensor, Any, Sample] | Unreadable]) -> Batch:
    """One batch of what could be read; the rest is named in it."""
    unreadable = [example for example in examples if isinstance(example, Unreadable)]
    readable = [example for example in examples if not isinstance(example, Unreadable)]
    if not readable:
        return Batch(torch.empty(0, dtype=torch.uint8), torch.empty(0, dtype=torch.int64), [], unreadable)
    images, targets, samples = zip(*readable, strict=True)
    return Batch(torch.stack(images), torch.stack(targets), samples, unreadable)
