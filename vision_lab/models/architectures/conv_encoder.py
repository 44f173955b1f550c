"""A plain convolutional encoder: a classifier by itself, and half of an autoencoder.

Its blocks are those of DCGAN's discriminator (Radford 2015, https://arxiv.org/abs/1511.06434), with
3x3 kernels.
"""

from __future__ import annotations

from itertools import pairwise
from math import ceil, log2
from typing import Annotated

from torch import Tensor, nn

from vision_lab.core.arguments import Count, Range, Width

GRID_SIZE = 4
"""Height and width of the last feature map, which keeps the position of things in the image."""


class ConvEncoder(nn.Module):
    """Maps (N, 3, H, W) of any size to (N, num_classes) logits, or to a code of that length.

    Each block halves the size of its feature map and doubles its channels; the last one is pooled
    to ``GRID_SIZE``, and a linear layer follows.

    Args:
        num_classes: number of outputs.
        image_size: (height, width) of the images, from which the number of blocks follows.
        base_channels: channels of the first block.
        num_blocks: number of blocks; None for as many as leave ``GRID_SIZE`` pixels.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_size: tuple[Count, Count] = (32, 32),
        base_channels: Width = 32,
        num_blocks: Annotated[int, Range(ge=1, le=8)] | None = None,
    ) -> None:
        super().__init__()
        channels = block_channels(image_size, base_channels=base_channels, num_blocks=num_blocks)
        blocks = []
        for in_channels, out_channels in pairwise([3, *channels]):
            blocks.append(DownBlock(in_channels, out_channels))
        self.features = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(GRID_SIZE)
        self.fc = nn.Linear(channels[-1] * GRID_SIZE**2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.features(images)).flatten(1))


class DownBlock(nn.Sequential):
    """A strided convolution, batch norm and leaky ReLU: half the height and width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(0.2, inplace=True),
        )


def block_channels(
    image_size: tuple[int, int], *, base_channels: int, num_blocks: int | None
) -> list[int]:
    """Return the channels of each block, twice those of the block before it.

    Args:
        image_size: (height, width) of the images.
        base_channels: channels of the first block.
        num_blocks: number of blocks; None for as many as leave ``GRID_SIZE`` pixels.
    """
    if num_blocks is None:
        num_blocks = max(1, ceil(log2(max(min(image_size) / GRID_SIZE, 1))))
    return [base_channels * 2**block for block in range(num_blocks)]
