"""U-Net's encoder as a classifier.

Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015.
https://arxiv.org/abs/1505.04597
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from torch import Tensor, nn

from vision_lab.core.arguments import Fraction, Range, Width


class UNetEncoder(nn.Module):
    """Maps (N, 3, H, W) to (N, num_classes) logits, by levels of two 3x3 convolutions.

    Unlike in the paper, convolutions are padded and followed by batch norm, and the mean of the
    last level is classified, so that the encoder can be pretrained like any other model.

    Args:
        num_classes: number of classes.
        base_channels: channels of the first level; each level has twice those of the previous one
            (64 in the paper).
        levels: number of levels (5 in the paper: strides 1 to 16).
        dropout: dropout probability after each of the last two levels.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        base_channels: Width = 64,
        levels: Annotated[int, Range(ge=2, le=8)] = 5,
        dropout: Fraction = 0.5,
    ) -> None:
        super().__init__()
        channels = [3, *(base_channels * 2**level for level in range(levels))]
        for level, (in_channels, out_channels) in enumerate(pairwise(channels), start=1):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if level > 1 else []
            layers += _convolution(in_channels, out_channels)
            layers += _convolution(out_channels, out_channels)
            if level > levels - 2:
                layers.append(nn.Dropout(dropout))
            self.add_module(f"level{level}", DownBlock(*layers))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for module in self.children():
            x = module(x)
        return x


class DownBlock(nn.Sequential):
    """A level, as a class of its own, so that its result is a feature map of the backbone."""


def _convolution(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]
