"""A feature pyramid (Lin 2017: https://arxiv.org/abs/1612.03144) on any backbone, and what detectors put on it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.protocols import Backbone

SIZE_DIVISIBLE = 32
"""torchvision pads pictures to a multiple of so many pixels."""


class BackboneWithFPN(nn.Module):
    """(N, C, H, W) -> maps of one width from fine to coarse, under torchvision's keys.

    Attributes:
        strides: picture pixels per pixel of each map.
        out_channels: of each map.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        finest: int,
        width: int,
        extra: ExtraFPNBlock,
        coarser: Sequence[int],
    ) -> None:
        super().__init__()
        if len(backbone.stages) < 2:
            raise ConfigurationError(
                "this model has a single map, a feature pyramid needs two: take another model"
            )
        # Those made for small pictures (ResNet-20) step less: there the two coarsest.
        used = [stage for stage in backbone.stages[:-2] if stage.stride >= finest] + [
            *backbone.stages[-2:]
        ]
        self.names = [stage.name for stage in used]
        self.strides = [
            *(stage.stride for stage in used),
            *(used[-1].stride * more for more in coarser),
        ]
        self.out_channels = width
        self.body = backbone.features(self.names)
        self.fpn = FeaturePyramidNetwork(
            [stage.channels for stage in used], width, extra_blocks=extra
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.body(images)
        made: dict[str, Tensor] = self.fpn(
            OrderedDict((str(k), maps[name]) for k, name in enumerate(self.names))
        )
        return made


class StrideAnchorGenerator(AnchorGenerator):
    """torchvision's anchors; of maps that do not cover the whole picture the stride is the one that was probed."""

    def __init__(
        self, sizes: Sequence[Sequence[int]], ratios: Sequence[float], *, strides: Sequence[int]
    ) -> None:
        super().__init__(tuple(map(tuple, sizes)), (tuple(ratios),) * len(sizes))
        self.strides = strides

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """(n, 4) boxes in pixels for each picture."""
        size = image_list.tensors.shape[-2:]
        grids = [feature.shape[-2:] for feature in feature_maps]
        self.set_cell_anchors(
            torch.float32, feature_maps[0].device
        )  # in half precision they would move by pixels
        strides = [
            [_anchor_stride(side, cells, stride) for side, cells in zip(size, grid, strict=True)]
            for grid, stride in zip(grids, self.strides, strict=True)
        ]
        together = torch.cat(self.grid_anchors(grids, strides))
        return [together for _ in image_list.image_sizes]


def _anchor_stride(side: int, cells: int, stride: int) -> int:
    """torchvision's step where the map covers the picture, as if that were padded as there; else the probed one."""
    padded = -(-side // SIZE_DIVISIBLE) * SIZE_DIVISIBLE
    return padded // -(-padded // stride) if cells == -(-side // stride) else stride
