"""Feature pyramid networks on any backbone, and the anchors of detectors on them.

Lin, Dollár, Girshick, He, Hariharan, Belongie: Feature Pyramid Networks for Object Detection, 2017.
https://arxiv.org/abs/1612.03144
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.protocols import Backbone

SIZE_DIVISIBLE = 32
"""torchvision pads images to a multiple of this."""


class BackboneWithFPN(nn.Module):
    """Maps (N, C, H, W) to feature maps of equal channels, fine to coarse, with torchvision's keys.

    Args:
        backbone: a backbone with at least two stages.
        min_stride: minimum stride of the feature maps. Of backbones for small images (ResNet-20),
            whose strides are smaller, the two coarsest are used.
        out_channels: channels of the feature maps.
        extra_blocks: module that adds coarser feature maps; None for none.
        extra_factors: strides of the added feature maps, relative to the coarsest.

    Attributes:
        strides: image pixels per pixel of each feature map.
        out_channels: channels of each feature map.

    Raises:
        ConfigurationError: if the backbone has a single stage.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        min_stride: int,
        out_channels: int,
        extra_blocks: ExtraFPNBlock | None,
        extra_factors: Sequence[int],
    ) -> None:
        super().__init__()
        if len(backbone.stages) < 2:
            raise ConfigurationError(
                "a feature pyramid requires at least two feature maps, but this model has one: "
                "choose another model"
            )
        stages = []
        for stage in backbone.stages[:-2]:
            if stage.stride >= min_stride:
                stages.append(stage)
        stages += backbone.stages[-2:]
        self.names = [stage.name for stage in stages]
        self.strides = [stage.stride for stage in stages]
        self.strides += [stages[-1].stride * factor for factor in extra_factors]
        self.out_channels = out_channels
        self.body = backbone.features(self.names)
        channels = [stage.channels for stage in stages]
        self.fpn = FeaturePyramidNetwork(channels, out_channels, extra_blocks=extra_blocks)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(images)
        ordered = OrderedDict((str(k), features[name]) for k, name in enumerate(self.names))
        pyramid: dict[str, Tensor] = self.fpn(ordered)
        return pyramid


class StrideAnchorGenerator(AnchorGenerator):
    """torchvision's anchor generator with explicit strides.

    torchvision derives strides from the sizes of the feature maps, which is wrong for maps that do
    not cover the whole image.

    Args:
        sizes: sides of the anchors of each feature map, in pixels.
        ratios: aspect ratios of the anchors.
        strides: stride of each feature map.
    """

    def __init__(
        self, sizes: Sequence[Sequence[int]], ratios: Sequence[float], *, strides: Sequence[int]
    ) -> None:
        super().__init__(tuple(map(tuple, sizes)), (tuple(ratios),) * len(sizes))
        self.strides = strides

    def forward(
        self,
        image_list: ImageList,
        feature_maps: list[Tensor],
    ) -> list[Tensor]:
        """Return the anchors (n, 4) of each image, in pixels.

        Args:
            image_list: the images.
            feature_maps: their feature maps.
        """
        image_size = image_list.tensors.shape[-2:]
        grid_sizes = [feature_map.shape[-2:] for feature_map in feature_maps]
        # Always float32: in half precision anchors would move by pixels.
        self.set_cell_anchors(torch.float32, feature_maps[0].device)
        strides = []
        for grid_size, stride in zip(grid_sizes, self.strides, strict=True):
            sides = zip(image_size, grid_size, strict=True)
            strides.append([_anchor_stride(side, cells, stride) for side, cells in sides])
        anchors = torch.cat(self.grid_anchors(grid_sizes, strides))
        return [anchors for _ in image_list.image_sizes]


def _anchor_stride(
    side: int,
    cells: int,
    stride: int,
) -> int:
    """Return torchvision's stride if a map covers the (padded) image, else the given one."""
    if cells != ceil(side / stride):
        return stride
    padded = ceil(side / SIZE_DIVISIBLE) * SIZE_DIVISIBLE
    return padded // ceil(padded / stride)
