"""``data=fashion_mini``: 7,000 real garments that travel inside the package. See ``fashion_mini.LICENSE``."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

FILE = Path(__file__).with_name("fashion_mini.npz")


class FashionMini(TensorDataset):
    """A map-style data set of ((1, 28, 28) uint8, label): 6,000 pictures for train, 1,000 for test, ordered by class.

    Xiao, Rasul, Vollgraf: Fashion-MNIST, 2017. https://arxiv.org/abs/1708.07747
    """

    targets: Tensor

    def __init__(self, *, split: Literal["train", "test"]) -> None:
        # Read at once: an archive left open would be shared by forked workers.
        with np.load(FILE) as archive:
            images = torch.from_numpy(archive[f"x_{split}"])[:, None]
            self.targets = torch.from_numpy(archive[f"y_{split}"].astype(np.int64))
        super().__init__(images, self.targets)
