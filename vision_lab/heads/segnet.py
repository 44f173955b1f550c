"""SegNet (Badrinarayanan, Kendall, Cipolla 2015: https://arxiv.org/abs/1511.00561), its decoder on any backbone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from vision_lab.core.arguments import Counts
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.segmentation import check_decoder_levels, upsample_to


def segnet(backbone: Backbone, spec: DataSpec, *, convs_per_level: Counts) -> Segnet:
    """The paper's decoder: maps are enlarged by putting each value where the encoder's pooling found its largest.

    Args:
        backbone: any with two maps; vgg16_bn in the paper.
        spec: the data's.
        convolutions: how many a level, from the coarsest (3, 3, 3, 2, 2 in the paper, whose levels mirror VGG-16's).

    Raises:
        ConfigurationError: where the backbone has more levels than that.
    """
    convs_per_level = check_decoder_levels(
        "head.convs_per_level", convs_per_level, backbone, wanted="a number", example=[2] * 6
    )
    return Segnet(backbone, spec.num_classes, convolutions=convs_per_level)


class Segnet(nn.Module):
    """(N, C, H, W) -> (N, K, H, W) logits.

    The largest of each 2x2 pixels of the backbone's maps give the places; of VGG's maps they are exactly what its own
    pooling takes. Backbones that make their maps smaller by other means are met in the same way.
    """

    def __init__(self, backbone: Backbone, classes: int, *, convolutions: Sequence[int]) -> None:
        super().__init__()
        coarsest, *finer = backbone.stages[::-1]
        self.names = tuple(stage.name for stage in (coarsest, *finer))
        self.backbone = backbone.features(self.names)
        widths = [stage.channels for stage in finer]
        same = (
            coarsest.channels == widths[0]
        )  # as in VGG, whose coarsest map is the pooled one before it
        self.projection = nn.Identity() if same else nn.Conv2d(coarsest.channels, widths[0], 1)
        *inner, last = (
            _level(width, following, count)
            for width, following, count in zip(
                widths, [*widths[1:], classes], convolutions, strict=True
            )
        )
        self.levels = nn.ModuleList(
            [*inner, last[:-2]]
        )  # scores are neither normed nor cut off at zero

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone(images)
        coarsest, *finer = (maps[name] for name in self.names)
        x = self.projection(coarsest)
        for level, encoded in zip(self.levels, finer, strict=True):
            x = level(_max_unpool(x, encoded))
        return upsample_to(x, images)


def _max_unpool(x: Tensor, encoded: Tensor) -> Tensor:
    """Values of ``x`` at the places of the largest of each 2x2 pixels of the encoder's map, zero elsewhere."""
    height, width = encoded.shape[-2:]
    floored = x.shape[-2:] == (
        height // 2,
        width // 2,
    )  # of odd sizes VGG leaves the last line out, most others do not
    _, places = F.max_pool2d(encoded, 2, 2, ceil_mode=not floored, return_indices=True)
    return F.max_unpool2d(
        upsample_to(x, places), places, (2, 2), (2, 2), output_size=[height, width]
    )


def _level(width: int, following: int, count: int) -> nn.Sequential:
    widths = [width] * count + [following]
    layers: list[nn.Module] = []
    for inside, outside in pairwise(widths):
        layers += [
            nn.Conv2d(inside, outside, 3, padding=1),
            nn.BatchNorm2d(outside),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
