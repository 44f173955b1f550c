"""SSD (Liu 2016: https://arxiv.org/abs/1512.02325): default boxes on maps of several sizes, without a pyramid."""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated

from torch import Tensor, nn
from torchvision.models import VGG
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSDFeatureExtractorVGG

from vision_lab.core.arguments import MAX_WIDTH, Count, Fraction, Range
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.torchvision_detectors import SSD, postprocess_arguments

SSD300_SIZE = (300, 300)
"""The size of the pictures for which the paper gives maps and boxes."""

VGG_POOLINGS = 5
"""Of VGG as published; with a small stem it has fewer."""

MAX_FEATURE_MAPS = 6
"""Maps, as in the paper; fewer where pictures are too small for them."""


def ssd(
    backbone: Backbone,
    spec: DataSpec,
    *,
    channels: Annotated[int, Range(ge=2, le=MAX_WIDTH)],
    score_threshold: Fraction,
    nms_threshold: Fraction,
    detections_per_image: Count,
) -> nn.Module:
    """On VGG and pictures of 300 pixels the paper's SSD300, keys and numbers of ``ssd300_vgg16``; else its idea.

    That is the backbone's maps of stride 8 and more, or its coarsest, and coarser ones by convolution, six at most.

    Args:
        backbone: any.
        spec: its number of classes and size of pictures are used.
        width: channels of the maps that are added.
        score_threshold: what is less sure is not told.
        nms_threshold: of two of a class that overlap more (IoU), the less sure is dropped.
        detections_per_image: the surest so many are told.

    Raises:
    """
    maps: nn.Module
    poolings = sum(isinstance(layer, nn.MaxPool2d) for layer in backbone.network.modules())
    if (
        isinstance(backbone.network, VGG)
        and poolings == VGG_POOLINGS
        and spec.image_size == SSD300_SIZE
    ):
        maps = SSDFeatureExtractorVGG(backbone.network.features, highres=False)
        boxes = DefaultBoxGenerator(
            [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
            scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
            steps=[8, 16, 32, 64, 100, 300],
        )
        map_channels = [512, 1024, 512, 256, 256, 256]
    else:
        maps = ExtraFeatureMaps(backbone, width=channels, size=spec.image_size)
        map_channels = maps.channels
        boxes = DefaultBoxGenerator([[2, 3]] * len(map_channels))
    maps.out_channels = map_channels  # type: ignore[assignment]  # where torchvision looks for it
    return SSD(
        maps,
        spec.num_classes,
        anchor_generator=boxes,
        size=spec.image_size[::-1],
        **postprocess_arguments(score_threshold, nms_threshold, detections_per_image),
    )


class ExtraFeatureMaps(nn.Module):
    """(N, C, H, W) -> a backbone's maps, and coarser ones by a convolution of stride 2 each."""

    def __init__(self, backbone: Backbone, *, width: int, size: tuple[int, int]) -> None:
        super().__init__()
        used = [stage for stage in backbone.stages if stage.stride >= 8][:MAX_FEATURE_MAPS] or [
            backbone.stages[-1]
        ]
        self.names = [stage.name for stage in used]
        self.body = backbone.features(self.names)
        self.channels = [stage.channels for stage in used]
        self.extra = nn.ModuleList()
        side = -(-max(size) // used[-1].stride)
        while side > 1 and len(self.channels) < MAX_FEATURE_MAPS:
            self.extra.append(_downsample_block(self.channels[-1], width))
            self.channels.append(width)
            side = -(-side // 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = self.body(images)
        maps = [found[name] for name in self.names]
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        return OrderedDict((str(k), each) for k, each in enumerate(maps))


def _downsample_block(channels: int, width: int) -> nn.Module:
    layers = nn.Sequential(
        nn.Conv2d(channels, width // 2, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
    )
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # it has one
    return layers
