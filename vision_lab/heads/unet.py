"""U-Net's decoder on any backbone.

Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015.
https://arxiv.org/abs/1505.04597
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vision_lab.core.arguments import Counts
from vision_lab.core.checking import check_arguments
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.segmentation import check_decoder_levels, upsample_to


@check_arguments
def unet(
    backbone: Backbone,
    spec: DataSpec,
    *,
    decoder_channels: Counts = (256, 128, 64, 32, 16),
) -> Unet:
    """Put the paper's decoder on all feature maps of a backbone.

    Args:
        backbone: a backbone with at least two stages; ``model=unet`` is the paper's encoder.
        spec: spec of the data.
        decoder_channels: channels of each level, from the coarsest; 512, 256, 128, 64 in the paper.

    Raises:
        ArgumentError: if the backbone has more levels.
    """
    decoder_channels = check_decoder_levels(
        "decoder_channels",
        decoder_channels,
        backbone,
        needed="a number of channels",
        example=[512, 256, 128, 64, 32, 16],
    )
    return Unet(backbone, spec.num_classes, decoder_channels=decoder_channels)


class Unet(nn.Module):
    """Maps (N, C, H, W) to (N, K, H, W) logits.

    Unlike in the paper, convolutions are padded, so that logits have the size of the image, and
    followed by batch norm; if the backbone has no feature map of full size, logits are upsampled.

    Args:
        backbone: a backbone with at least two stages.
        num_classes: number of classes K.
        decoder_channels: channels of each level, from the coarsest.
    """

    def __init__(
        self, backbone: Backbone, num_classes: int, *, decoder_channels: Sequence[int]
    ) -> None:
        super().__init__()
        coarsest, *finer = backbone.stages[::-1]
        self.names = tuple(stage.name for stage in (coarsest, *finer))
        self.backbone = backbone.features(self.names)
        levels = []
        in_channels = coarsest.channels
        for stage, out_channels in zip(finer, decoder_channels, strict=True):
            levels.append(UpBlock(in_channels, stage.channels, out_channels))
            in_channels = out_channels
        self.levels = nn.ModuleList(levels)
        self.classifier = nn.Conv2d(decoder_channels[-1], num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images)
        x, *skips = (features[name] for name in self.names)
        for level, skip in zip(self.levels, skips, strict=True):
            x = level(x, skip)
        return upsample_to(self.classifier(x), images)


class UpBlock(nn.Module):
    """Upsampling by 2, concatenation with a feature map of the backbone, and two convolutions.

    Args:
        in_channels: channels of the coarser level.
        skip_channels: channels of the backbone's feature map.
        out_channels: channels of the result.
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.convs = nn.Sequential(
            *_convolution(out_channels + skip_channels, out_channels),
            *_convolution(out_channels, out_channels),
        )

    def forward(
        self,
        x: Tensor,
        skip: Tensor,
    ) -> Tensor:
        return self.convs(torch.cat([upsample_to(self.up(x), skip), skip], dim=1))


def _convolution(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
