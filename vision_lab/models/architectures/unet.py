"""The contracting path of U-Net (Ronneberger, Fischer, Brox 2015: https://arxiv.org/abs/1505.04597) as a classifier."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from torch import Tensor, nn

from vision_lab.core.arguments import Fraction, Range, Width


class UNetEncoder(nn.Module):
    """(N, 3, H, W) -> (N, num_classes) logits: levels of two 3x3 convolutions, halved in between by 2x2 max pooling.

    What differs from the paper: convolutions are padded and followed by batch norm; the mean over the last level is
    classified, so that it can be trained, or its weights be learnt, like any other model.

    Args:
        num_classes: how many classes.
        width: channels of the first level; each level has twice those of the one before (64 in the paper).
        levels: how many (5 in the paper: strides 1 to 16).
        dropout: behind the last two levels.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        width: Width = 64,
        levels: Annotated[int, Range(ge=2, le=8)] = 5,
        dropout: Fraction = 0.5,
    ) -> None:
        super().__init__()
        widths = [3, *(width * 2**level for level in range(levels))]
        for level, (inside, outside) in enumerate(pairwise(widths), start=1):
            pooling = [nn.MaxPool2d(2)] if level > 1 else []
            dropped = [nn.Dropout(dropout)] if level > levels - 2 else []
            layers = [
                *pooling,
                *_convolution(inside, outside),
                *_convolution(outside, outside),
                *dropped,
            ]
            self.add_module(f"level{level}", DownBlock(*layers))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for module in self.children():
            x = module(x)
        return x


class DownBlock(nn.Sequential):
    """One resolution: a backbone's map, as one unit."""


def _convolution(inside: int, outside: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inside, outside, 3, padding=1),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    ]
