"""U-Net (Ronneberger, Fischer, Brox 2015: https://arxiv.org/abs/1505.04597), its expanding path on any backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vision_lab.core.arguments import Counts
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.segmentation import check_decoder_levels, upsample_to


def unet(backbone: Backbone, spec: DataSpec, *, decoder_channels: Counts) -> Unet:
    """The paper's decoder on all of a backbone's maps.

    Args:
        backbone: any with two maps; ``model=unet`` is the paper's own contracting path.
        spec: the data's.
        widths: channels of each level, from the coarsest; 512, 256, 128, 64 in the paper.

    Raises:
        ConfigurationError: where the backbone has more levels than that.
    """
    decoder_channels = check_decoder_levels(
        "head.decoder_channels",
        decoder_channels,
        backbone,
        wanted="a number of channels",
        example=[512, 256, 128, 64, 32, 16],
    )
    return Unet(backbone, spec.num_classes, widths=decoder_channels)


class Unet(nn.Module):
    """(N, C, H, W) -> (N, K, H, W) logits.

    What differs from the paper: convolutions are padded, so that the output has the picture's size, and followed by
    batch norm; where a backbone has no map at full size the scores of its finest are enlarged.
    """

    def __init__(self, backbone: Backbone, classes: int, *, widths: Sequence[int]) -> None:
        super().__init__()
        stages = backbone.stages[::-1]
        self.names = tuple(stage.name for stage in stages)
        self.backbone = backbone.features(self.names)
        self.levels = nn.ModuleList(
            UpBlock(below, stage.channels, width)
            for below, stage, width in zip(
                [stages[0].channels, *widths], stages[1:], widths, strict=False
            )
        )
        self.classifier = nn.Conv2d(widths[-1], classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone(images)
        x, *finer = (maps[name] for name in self.names)
        for level, skip in zip(self.levels, finer, strict=True):
            x = level(x, skip)
        return upsample_to(self.classifier(x), images)


class UpBlock(nn.Module):
    """A step up: enlarge twofold, join with the backbone's map of that size, convolve twice."""

    def __init__(self, below: int, skip: int, width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(below, width, 2, stride=2)
        self.convolutions = nn.Sequential(
            *_convolution(width + skip, width), *_convolution(width, width)
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.convolutions(torch.cat([upsample_to(self.up(x), skip), skip], dim=1))


def _convolution(inside: int, outside: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )
