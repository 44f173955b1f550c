"""``data=scenes``: garments on photographs, with masks and boxes. See the ``.LICENSE`` files."""

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
from vision_lab.data.bundled.scene_classes import get_labels

BACKGROUNDS_FILE = Path(__file__).with_name("backgrounds.npz")

SPLITS = ("train", "val", "test")

VAL_PER_CLASS = 100
"""Number of garments of each class, of 600, that are used for validation only."""

FOREGROUND_THRESHOLD = 24
"""Gray value from which a pixel belongs to a garment, whose background is black."""

OBJECT_SCALE_RANGE = (0.25, 0.55)
"""Height of a garment, as a fraction of the image's shorter side."""

MAX_OBJECTS = 5
"""Maximum number of garments in an image; the minimum is 1."""

MIN_VISIBLE_FRACTION = 0.4
"""Garments of which a smaller fraction is visible are ignored."""

BACKGROUND_SCALE_RANGE = (1 / 3, 1.0)
"""Height of a background crop, as a fraction of the largest that fits the photograph."""

MAX_IMAGES = 1_000_000

Side = Annotated[int, Range(ge=16)]


@dataclass(frozen=True)
class Scene:
    """An image with its ground truth.

    Attributes:
        image: (3, H, W) uint8.
        instances: (H, W) uint8: number of the visible garment, from 1; 0 for the background.
        labels: label of each garment.
        hidden: whether too little of each garment is visible.
    """

    image: Tensor
    instances: Tensor
    labels: tuple[int, ...]
    hidden: tuple[bool, ...]

    def mask(self) -> Tensor:
        """Return the mask, (H, W) uint8: 0 for background, label + 1, 255 for hidden garments."""
        values = [0]  # of the pixels of each instance, background first
        for label, hidden in zip(self.labels, self.hidden, strict=True):
            values.append(IGNORE_INDEX if hidden else label + 1)
        return torch.tensor(values, dtype=torch.uint8)[self.instances.int()]

    def boxes(self) -> Tensor:
        """Return the box of the visible part of each garment, (n, 4); zeros if it is hidden."""
        boxes = torch.zeros(len(self.labels), 4)
        for index in range(len(self.labels)):
            rows, columns = (self.instances == index + 1).nonzero(as_tuple=True)
            if len(rows):
                box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                boxes[index] = torch.stack(box).float()
        return boxes

    def box_targets(self) -> dict[str, Tensor]:
        """Return ``boxes``, ``labels``, ``crowd`` and ``area`` of the visible garments."""
        areas = torch.bincount(self.instances.flatten().int(), minlength=len(self.labels) + 1)[1:]
        is_visible = areas > 0
        return {
            "boxes": self.boxes()[is_visible],
            "labels": torch.tensor(self.labels)[is_visible],
            "crowd": torch.tensor(self.hidden)[is_visible],
            "area": areas[is_visible].float(),
        }


NumImages = Annotated[int, Range(ge=1, le=MAX_IMAGES)]


class Scenes:
    """A map-style dataset of generated images with masks or boxes, functions of seed and index.

    The three splits share neither garments nor photographs.

    Args:
        split: train, val or test.
        num_images: number of images, or the number of each split.
        image_size: (height, width) in pixels.
        label_set: see ``scene_classes.class_names``.
        seed: seed of the whole dataset.
        target_type: ``masks``, or ``boxes`` of the visible parts, in which hidden garments are
            crowds.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "val", "test"],
        num_images: NumImages | Mapping[str, NumImages],
        image_size: Annotated[
            tuple[Side, Side],
            Hint("[height,width], at least 16 pixels: scenes are drawn from garments"),
        ],
        label_set: Literal["grouped", "all"],
        seed: Annotated[int, Range(ge=0)],
        target_type: Literal["masks", "boxes"] = "masks",
    ) -> None:
        self.split = split
        self.num_images = num_images[split] if isinstance(num_images, Mapping) else num_images
        self.image_size = tuple(image_size)
        self.labels = get_labels(label_set)
        self.target_type = target_type
        self.seed = seed
        self.garments, self.garment_classes = _load_garments(split)
        # Read completely: forked workers would share an open archive.
        with np.load(BACKGROUNDS_FILE) as archive:
            names = []
            for name in sorted(archive):
                if name.startswith(f"{split}_"):
                    names.append(name)
            self.photographs = [torch.from_numpy(archive[name]).permute(2, 0, 1) for name in names]

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor | dict[str, Tensor]]:
        scene = self.scene(index)
        if self.target_type == "boxes":
            return scene.image, scene.box_targets()
        return scene.image, scene.mask()

    @property
    def config_key(self) -> Mapping[str, object]:
        """The settings that determine the images; see ``fingerprint``."""
        return {
            "seed": self.seed,
            "image_size": self.image_size,
            "labels": self.labels,
            "target_type": self.target_type,
        }

    def scene(self, index: int) -> Scene:
        """Generate an image with its ground truth.

        Raises:
            IndexError: if there is no such image.
        """
        if not 0 <= index < self.num_images:
            raise IndexError(index)
        random = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        image = self._draw_background(random)
        instances = torch.zeros(self.image_size, dtype=torch.uint8)
        labels, areas = [], []
        num_objects = int(random.integers(1, MAX_OBJECTS + 1))
        for number in range(1, num_objects + 1):
            garment = int(random.integers(len(self.garments)))
            areas.append(_paste(self.garments[garment], image, instances, number, random))
            labels.append(self.labels[self.garment_classes[garment]])
        visible = torch.bincount(instances.flatten().int(), minlength=num_objects + 1)[1:].tolist()
        hidden = []
        for visible_area, area in zip(visible, areas, strict=True):
            hidden.append(visible_area < MIN_VISIBLE_FRACTION * area)
        return Scene(image, instances, tuple(labels), tuple(hidden))

    def _draw_background(self, random: Generator) -> Tensor:
        """Crop a photograph at random, rotated and with other colors, because there are few."""
        photograph = self.photographs[random.integers(len(self.photographs))]
        photograph = photograph.rot90(int(random.integers(4)), dims=(1, 2))
        photograph = photograph[random.permutation(3).tolist()]
        _, photo_height, photo_width = photograph.shape
        height, width = self.image_size
        largest = min(photo_height / height, photo_width / width)
        scale = random.uniform(*BACKGROUND_SCALE_RANGE) * largest
        crop_height, crop_width = max(1, int(height * scale)), max(1, int(width * scale))
        top = int(random.integers(photo_height - crop_height + 1))
        left = int(random.integers(photo_width - crop_width + 1))
        crop = photograph[:, top : top + crop_height, left : left + crop_width]
        background = F.resize(crop, [height, width], antialias=True)
        if random.random() < 0.5:
            background = background.flip(-1)
        brightness = random.uniform(0.5, 1.3, size=(3, 1, 1)).astype(np.float32)
        shaded = background * torch.from_numpy(brightness)
        return shaded.round().clamp(max=255).to(torch.uint8)


def _load_garments(split: str) -> tuple[Tensor, list[int]]:
    """Return the garments of a split, (n, 1, 28, 28), and their classes."""
    dataset = FashionMini(split="test" if split == "test" else "train")
    images, classes = dataset.tensors
    if split != "test":
        per_class = len(classes) // 10
        index_in_class = torch.arange(len(classes)) % per_class  # they are sorted by class
        is_val = index_in_class >= per_class - VAL_PER_CLASS
        selected = is_val if split == "val" else ~is_val
        images, classes = images[selected], classes[selected]
    return images, classes.tolist()


def _paste(
    garment: Tensor, image: Tensor, instances: Tensor, number: int, random: Generator
) -> int:
    """Draw a garment of random size, position and color on an image, in place.

    Args:
        garment: (1, 28, 28) uint8.
        image: (3, H, W) uint8.
        instances: (H, W) uint8 number of the visible garment.
        number: number of this garment.
        random: random generator.

    Returns:
        Area of the garment in pixels, visible or not.
    """
    height, width = image.shape[-2:]
    side = round(random.uniform(*OBJECT_SCALE_RANGE) * min(height, width))
    pixels = F.resize(garment, [side, side], antialias=True)[0]
    if random.random() < 0.5:
        pixels = pixels.flip(-1)
    is_garment = pixels >= FOREGROUND_THRESHOLD
    # The center is in the image, so up to three quarters of the garment may be outside.
    top = int(random.integers(height)) - side // 2
    left = int(random.integers(width)) - side // 2
    rows = slice(max(top, 0), min(top + side, height))
    columns = slice(max(left, 0), min(left + side, width))
    visible = (
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )
    color = torch.from_numpy(random.uniform(0.25, 1.0, size=(3, 1)).astype(np.float32))
    where = is_garment[visible]
    image[:, rows, columns][:, where] = (pixels[visible][where] * color).round().to(torch.uint8)
    instances[rows, columns][where] = number
    return int(is_garment.sum())
