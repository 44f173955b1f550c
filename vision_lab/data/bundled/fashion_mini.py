"""``data=fashion_mini``: 7,000 images of Fashion-MNIST. See ``fashion_mini.LICENSE``."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

FILE = Path(__file__).with_name("fashion_mini.npz")


class FashionMini(TensorDataset):
    """A map-style dataset of ((1, 28, 28) uint8, label), sorted by class.

    There are 6,000 training and 1,000 test images.

    Xiao, Rasul, Vollgraf: Fashion-MNIST, 2017. https://arxiv.org/abs/1708.07747

    Args:
        split: train or test.
    """

    targets: Tensor

    def __init__(self, *, split: Literal["train", "test"]) -> None:
        # Read completely: forked workers would share an open archive.
        with np.load(FILE) as archive:
            images = torch.from_numpy(archive[f"x_{split}"])[:, None]
            self.targets = torch.from_numpy(archive[f"y_{split}"].astype(np.int64))
        super().__init__(images, self.targets)


def fashion_mini(*, split: Literal["train", "val", "test"]) -> FashionMini | None:
    """Create a split of the dataset.

    Args:
        split: the split.

    Returns:
        The dataset; None for val, which is held out of train.
    """
    if split == "val":
        return None
    return FashionMini(split=split)
