"""SegNet's decoder on any backbone.

Badrinarayanan, Kendall, Cipolla: SegNet: A Deep Convolutional Encoder-Decoder Architecture for
Image Segmentation, 2015. https://arxiv.org/abs/1511.00561
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from vision_lab.core.arguments import Counts
from vision_lab.core.checking import check_arguments
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.segmentation import check_decoder_levels, upsample_to


@check_arguments
def segnet(
    backbone: Backbone,
    spec: DataSpec,
    *,
    convs_per_level: Counts = (3, 3, 3, 2, 2),
) -> Segnet:
    """Put the paper's decoder, which upsamples by the encoder's pooling indices, on a backbone.

    Args:
        backbone: a backbone with at least two stages; vgg16_bn in the paper.
        spec: spec of the data.
        convs_per_level: number of convolutions of each level, from the coarsest (3, 3, 3, 2, 2 in
            the paper, mirroring VGG-16).

    Raises:
        ArgumentError: if the backbone has more levels.
    """
    convs_per_level = check_decoder_levels(
        "convs_per_level", convs_per_level, backbone, needed="a number", example=[2] * 6
    )
    return Segnet(backbone, spec.num_classes, convs_per_level=convs_per_level)


class Segnet(nn.Module):
    """Maps (N, C, H, W) to (N, K, H, W) logits.

    The indices are those of the maximum of each 2x2 pixels in the backbone's feature maps; for VGG
    they are those of its own pooling. Other backbones, which downsample by other means, are treated
    in the same way.

    Args:
        backbone: a backbone with at least two stages.
        num_classes: number of classes K.
        convs_per_level: number of convolutions of each level, from the coarsest.
    """

    def __init__(
        self, backbone: Backbone, num_classes: int, *, convs_per_level: Sequence[int]
    ) -> None:
        super().__init__()
        coarsest, *finer = backbone.stages[::-1]
        self.names = tuple(stage.name for stage in (coarsest, *finer))
        self.backbone = backbone.features(self.names)
        channels = [stage.channels for stage in finer]
        self.projection: nn.Module = nn.Identity()
        if coarsest.channels != channels[0]:  # they are equal in VGG
            self.projection = nn.Conv2d(coarsest.channels, channels[0], 1)
        levels = []
        for (in_channels, out_channels), num_convs in zip(
            pairwise([*channels, num_classes]), convs_per_level, strict=True
        ):
            levels.append(_make_level(in_channels, out_channels, num_convs))
        levels[-1] = levels[-1][:-2]  # logits are not normalized or rectified
        self.levels = nn.ModuleList(levels)

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images)
        coarsest, *finer = (features[name] for name in self.names)
        x = self.projection(coarsest)
        for level, encoded in zip(self.levels, finer, strict=True):
            x = level(_max_unpool(x, encoded))
        return upsample_to(x, images)


def _max_unpool(x: Tensor, encoded: Tensor) -> Tensor:
    """Place the values of ``x`` at the maxima of 2x2 pixels of ``encoded``, with 0 elsewhere."""
    height, width = encoded.shape[-2:]
    # VGG's pooling drops the last row of an odd height; most other backbones do not.
    is_floored = x.shape[-2:] == (height // 2, width // 2)
    _, indices = F.max_pool2d(encoded, 2, 2, ceil_mode=not is_floored, return_indices=True)
    values = upsample_to(x, indices)
    return F.max_unpool2d(values, indices, (2, 2), (2, 2), output_size=[height, width])


def _make_level(
    in_channels: int,
    out_channels: int,
    num_convs: int,
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels_in, channels_out in pairwise([in_channels] * num_convs + [out_channels]):
        layers += [
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
