"""Fashion-MNIST with wrong labels that are known."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from vision_lab.data.bundled.fashion_mini import FashionMini, fashion_mini

NUM_CLASSES = 10


def plant(labels: Tensor, count: int, *, seed: int) -> dict[int, int]:
    """Select images at random, and for each another class at random.

    Args:
        labels: (N,) labels.
        count: number of images.
        seed: seed of the selection.

    Returns:
        The wrong label by index.
    """
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randperm(len(labels), generator=generator)[:count]
    offsets = torch.randint(1, NUM_CLASSES, (count,), generator=generator)
    wrong = (labels[indices] + offsets) % NUM_CLASSES
    return dict(zip(indices.tolist(), wrong.tolist(), strict=True))


def mislabeled(
    *, split: Literal["train", "val", "test"], count: int, seed: int
) -> TensorDataset | None:
    """Create a split of ``data=fashion_mini``, with wrong labels in the training split.

    Args:
        split: the split.
        count: number of wrong labels.
        seed: seed of their selection.
    """
    dataset: FashionMini | None = fashion_mini(split=split)
    if split == "train":
        assert dataset is not None
        for index, label in plant(dataset.targets, count, seed=seed).items():
            dataset.targets[index] = label  # the same tensor as that of the samples
    return dataset
