"""Statistics of labels and masks: class frequencies, and the weights that balance them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from vision_lab.core.errors import UnreadableFileError
from vision_lab.core.protocols import Dataset
from vision_lab.core.spec import IGNORE_INDEX
from vision_lab.data.fingerprint import get_shards
from vision_lab.data.splits import evenly_spaced


def inverse_frequencies(labels: Sequence[int], num_classes: int) -> Tensor:
    """Compute weights that balance classes of images.

    Args:
        labels: the label of each image.
        num_classes: number of classes.

    Returns:
        (num_classes,) float, inverse to the frequencies, with mean 1 over the images.
    """
    counts = torch.bincount(torch.tensor(labels), minlength=num_classes)
    return counts.sum() / (counts.clamp(min=1) * (counts > 0).sum())


def median_frequencies(counts: Tensor) -> Tensor:
    """Compute weights that balance classes of pixels (Eigen 2014, section 6.3.2).

    The frequency of a class is its fraction of the pixels of images that contain it.

    Args:
        counts: (n, num_classes) pixels of each class in n masks.

    Returns:
        (num_classes,) float, the median frequency divided by that of the class; 0 if it is absent.
    """
    image_pixels = counts.sum(dim=1, keepdim=True)
    pixels_of_images_with_class = ((counts > 0) * image_pixels).sum(dim=0)
    frequencies = counts.sum(dim=0) / pixels_of_images_with_class.clamp(min=1)
    present = frequencies[frequencies > 0]
    median = present.quantile(0.5) if len(present) else 0.0
    return torch.where(frequencies > 0, median / frequencies, 0.0)


def count_pixels(
    dataset: Dataset,
    class_lookup: Tensor,
    *,
    num_classes: int,
    max_samples: int,
) -> Tensor:
    """Count the pixels of each class, and ignored ones, in evenly spaced masks.

    Of shards the first masks are counted: ``mode=pack`` stores training images in random order, and
    others may have to be copied.

    Args:
        dataset: dataset of images and masks.
        class_lookup: (256,) label of each value of a mask.
        num_classes: number of classes.
        max_samples: maximum number of masks.

    Returns:
        (n, num_classes + 1) float.
    """
    rows = []
    count = min(max_samples, len(dataset))
    has_shards = get_shards(dataset) is not None
    for index in range(count) if has_shards else evenly_spaced(len(dataset), count):
        with suppress(UnreadableFileError):  # reported when the sample is trained on
            _, mask = dataset[index]
            if mask is None:
                continue
            values = torch.as_tensor(np.asarray(mask)).int()
            labels = class_lookup[values.clamp(0, IGNORE_INDEX)].flatten().int()
            counts = torch.bincount(labels, minlength=IGNORE_INDEX + 1).float()
            rows.append(torch.cat([counts[:num_classes], counts[-1:]]))
    if rows:
        return torch.stack(rows)
    return torch.zeros(1, num_classes + 1)


def describe_single_class(counts: Tensor, class_names: Sequence[str]) -> str | None:
    """Describe masks that contain one class or none, such as unmapped masks of 0 and 255.

    Args:
        counts: (num_classes + 1,) pixels of each class, and ignored ones.
        class_names: the class names.

    Returns:
        What they contain; None if there are two classes or more.
    """
    present = []
    for name, count in zip(class_names, counts[:-1].tolist(), strict=True):
        if count:
            present.append(name)
    if len(present) > 1 or len(class_names) < 2:
        return None
    ignored = 100 * counts[-1] / counts.sum().clamp(min=1)
    names = ", ".join(present) or "none"
    return f"no class but {names}, and {ignored:.0f} % of their pixels are ignored"
