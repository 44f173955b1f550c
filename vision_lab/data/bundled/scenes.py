"""``data=scenes``: real garments on real photographs, with exact masks and boxes. See the two ``.LICENSE`` files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from vision_lab.core.arguments import Hint, Range
from vision_lab.core.spec import IGNORE_INDEX
from vision_lab.data.bundled.fashion_mini import FashionMini
from vision_lab.data.bundled.scene_classes import labels

FILE = Path(__file__).with_name("backgrounds.npz")

VAL_PER_CLASS = 100
"""Garments of each class that training leaves to validation, of 600."""

FOREGROUND_THRESHOLD = 24
"""The brightness, of 255, from which a pixel belongs to a garment: its surroundings are black."""

OBJECT_SCALE_RANGE = (0.25, 0.55)
"""A garment's height, in parts of the picture's."""

MAX_OBJECTS = 5
"""Garments in a picture; there is at least one."""

MIN_VISIBLE_FRACTION = 0.4
"""A garment of which less is seen, behind others or beyond the border, is ignored."""


@dataclass(frozen=True)
class Scene:
    """A picture and all that is known of it.

    Attributes:
        picture: (3, H, W) uint8.
        instances: (H, W) uint8: 0 where there is no garment, else the number, from 1, of the one that is seen.
        labels: n labels from 0, in the order of the numbers.
        hidden: of each, whether too little is seen of it to count.
    """

    picture: Tensor
    instances: Tensor
    labels: tuple[int, ...]
    hidden: tuple[bool, ...]

    def mask(self) -> Tensor:
        """(H, W) uint8: 0 for the background, label + 1 for garments, 255 for hidden ones."""
        classes = [
            IGNORE_INDEX if hidden else label + 1
            for label, hidden in zip(self.labels, self.hidden, strict=True)
        ]
        return torch.tensor([0, *classes], dtype=torch.uint8)[self.instances.int()]

    def boxes(self) -> Tensor:
        """(n, 4) float, left, top, right and bottom of what is seen of each garment, in pixels; zeros for nothing."""
        found = torch.zeros(len(self.labels), 4)
        for number in range(len(self.labels)):
            rows, columns = (self.instances == number + 1).nonzero(as_tuple=True)
            if len(rows):
                ends = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                found[number] = torch.stack(ends).float()
        return found

    def objects(self) -> dict[str, Tensor]:
        """``boxes``, ``labels``, ``crowd`` and ``area`` in pixels of the garments of which anything is seen."""
        areas = torch.bincount(self.instances.flatten().int(), minlength=len(self.labels) + 1)[1:]
        seen = areas > 0
        return {
            "boxes": self.boxes()[seen],
            "labels": torch.tensor(self.labels)[seen],
            "crowd": torch.tensor(self.hidden)[seen],
            "area": areas[seen].float(),
        }


MAX_COUNT = 1_000_000

Side = Annotated[int, Range(ge=16)]


class Scenes:
    """A map-style data set of pictures and masks or boxes; each is a function of the seed and its index.

    The three splits share neither garments nor photographs.

    Args:
        split: train, val or test.
        count: pictures.
        size: their (height, width) in pixels.
        classes: ``grouped`` or ``all``.
        seed: of the whole data set.
        target: ``masks``, or ``boxes`` of what is seen of each garment; one that is hidden is a crowd then.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "val", "test"],
        num_images: Annotated[int, Range(ge=1, le=MAX_COUNT)],
        image_size: Annotated[
            tuple[Side, Side],
            Hint("[height,width], 16 pixels or more: scenes are made of garments"),
        ],
        label_set: Literal["grouped", "all"],
        seed: Annotated[int, Range(ge=0)],
        target_type: Literal["masks", "boxes"] = "masks",
    ) -> None:
        self.split = split
        self.num_images = num_images
        self.image_size = tuple(image_size)
        self.labels = labels(label_set)
        self.target_type = target_type
        self.seed = seed
        self.garments, self.garment_labels = _garments(split)
        # Read at once: an archive left open would be shared by forked workers.
        with np.load(FILE) as archive:
            names = [name for name in sorted(archive) if name.startswith(f"{split}_")]
            self.photographs = [torch.from_numpy(archive[name]).permute(2, 0, 1) for name in names]

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor | dict[str, Tensor]]:
        scene = self.scene(index)
        return scene.picture, scene.objects() if self.target_type == "boxes" else scene.mask()

    @property
    def config_key(self) -> Mapping[str, object]:
        """What the pictures are a function of."""
        return {
            "seed": self.seed,
            "size": self.image_size,
            "labels": self.labels,
            "target": self.target_type,
        }

    def scene(self, index: int) -> Scene:
        """All that is known of a picture."""
        if not 0 <= index < self.num_images:
            raise IndexError(index)
        random = np.random.default_rng(
            [self.seed, ("train", "val", "test").index(self.split), index]
        )
        picture = self._background(random)
        instances = torch.zeros(self.image_size, dtype=torch.uint8)
        found, areas = [], []
        for number in range(1, int(random.integers(1, MAX_OBJECTS + 1)) + 1):
            which = int(random.integers(len(self.garments)))
            area = _paste(self.garments[which], picture, instances, number, random)
            found.append(self.labels[self.garment_labels[which]])
            areas.append(area)
        seen = torch.bincount(instances.flatten().int(), minlength=len(areas) + 1)[1:].tolist()
        hidden = tuple(
            visible < MIN_VISIBLE_FRACTION * area for visible, area in zip(seen, areas, strict=True)
        )
        return Scene(picture, instances, tuple(found), hidden)

    def _background(self, random: Generator) -> Tensor:
        """A part of a photograph, from a third to all of its height, turned, in another light: there are few."""
        photograph = self.photographs[random.integers(len(self.photographs))]
        photograph = photograph.rot90(int(random.integers(4)), dims=(1, 2))[
            random.permutation(3).tolist()
        ]
        height, width = self.image_size
        scale = random.uniform(1 / 3, 1.0) * min(
            photograph.shape[1] / height, photograph.shape[2] / width
        )
        rows, columns = max(1, int(height * scale)), max(1, int(width * scale))
        top = int(random.integers(photograph.shape[1] - rows + 1))
        left = int(random.integers(photograph.shape[2] - columns + 1))
        part = F.resize(
            photograph[:, top : top + rows, left : left + columns], [height, width], antialias=True
        )
        part = part.flip(-1) if random.random() < 0.5 else part
        light = torch.from_numpy(random.uniform(0.5, 1.3, size=(3, 1, 1)).astype(np.float32))
        return (part * light).round().clamp(max=255).to(torch.uint8)


def _garments(split: str) -> tuple[Tensor, list[int]]:
    """(n, 1, 28, 28) pictures and their classes: those of the split alone."""
    whole = FashionMini(split="test" if split == "test" else "train")
    images, kinds = whole.tensors
    if split != "test":
        place = torch.arange(len(kinds)) % (
            len(kinds) // 10
        )  # within its class: they are ordered by class
        held_out = place >= len(kinds) // 10 - VAL_PER_CLASS
        chosen = held_out if split == "val" else ~held_out
        images, kinds = images[chosen], kinds[chosen]
    return images, kinds.tolist()


def _paste(
    garment: Tensor, picture: Tensor, instances: Tensor, number: int, random: Generator
) -> int:
    """Lay a garment of random size, place and colour over a picture; its area in pixels, seen or not."""
    height, width = picture.shape[-2:]
    side = round(random.uniform(*OBJECT_SCALE_RANGE) * min(height, width))
    shades = F.resize(garment, [side, side], antialias=True)[0]
    if random.random() < 0.5:
        shades = shades.flip(-1)
    cloth = shades >= FOREGROUND_THRESHOLD
    # Its centre lies in the picture, so that up to three quarters of it may lie outside.
    top, left = (int(random.integers(extent)) - side // 2 for extent in (height, width))
    inside = (
        slice(max(top, 0), min(top + side, height)),
        slice(max(left, 0), min(left + side, width)),
    )
    part = (
        slice(inside[0].start - top, inside[0].stop - top),
        slice(inside[1].start - left, inside[1].stop - left),
    )
    colour = torch.from_numpy(random.uniform(0.25, 1.0, size=(3, 1)).astype(np.float32))
    where = cloth[part]
    picture[:, *inside][:, where] = (shades[part][where] * colour).round().to(torch.uint8)
    instances[inside][where] = number
    return int(cloth.sum())
