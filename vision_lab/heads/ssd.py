"""SSD: default boxes on feature maps of several sizes.

Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg: SSD: Single Shot MultiBox Detector, 2016.
https://arxiv.org/abs/1512.02325
"""

from __future__ import annotations

from collections import OrderedDict
from math import ceil
from typing import Annotated

from torch import Tensor, nn
from torchvision.models import VGG
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSDFeatureExtractorVGG

from vision_lab.core.arguments import MAX_WIDTH, Count, Fraction, Range
from vision_lab.core.checking import check_arguments
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.torchvision_detectors import SSD, postprocess_arguments

SSD300_SIZE = (300, 300)
"""Image size for which the paper gives feature maps and boxes."""

VGG_POOLINGS = 5
"""Number of poolings of the published VGG; with a stem for small images there are fewer."""

MAX_FEATURE_MAPS = 6
"""Number of feature maps in the paper; fewer for small images."""

MIN_STRIDE = 8


@check_arguments
def ssd(
    backbone: Backbone,
    spec: DataSpec,
    *,
    channels: Annotated[int, Range(ge=2, le=MAX_WIDTH)] = 256,
    score_threshold: Fraction = 0.01,
    nms_threshold: Fraction = 0.45,
    detections_per_image: Count = 200,
) -> nn.Module:
    """Put SSD on a backbone.

    On VGG and images of 300 x 300 pixels this is the paper's SSD300, with the keys and numbers of
    ``ssd300_vgg16``. Otherwise it uses feature maps of stride 8 or more, or the coarsest, and adds
    coarser ones by convolution.

    Args:
        backbone: any backbone.
        spec: spec of the data.
        channels: channels of the added feature maps.
        score_threshold: detections with a lower score are discarded.
        nms_threshold: IoU above which non-maximum suppression drops the lower-scoring box of a
            class.
        detections_per_image: maximum number of detections, those with the highest scores.
    """
    features: nn.Module
    if _is_ssd300(backbone, spec):
        features = SSDFeatureExtractorVGG(backbone.network.features, highres=False)
        boxes = DefaultBoxGenerator(
            [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
            scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
            steps=[8, 16, 32, 64, 100, 300],
        )
        out_channels = [512, 1024, 512, 256, 256, 256]
    else:
        features = ExtraFeatureMaps(backbone, channels=channels, image_size=spec.image_size)
        out_channels = features.channels
        boxes = DefaultBoxGenerator([[2, 3]] * len(out_channels))
    features.out_channels = out_channels  # type: ignore[assignment]  # read by torchvision
    return SSD(
        features,
        spec.num_classes,
        anchor_generator=boxes,
        size=spec.image_size[::-1],
        **postprocess_arguments(score_threshold, nms_threshold, detections_per_image),
    )


def _is_ssd300(backbone: Backbone, spec: DataSpec) -> bool:
    modules = backbone.network.modules()
    num_poolings = sum(isinstance(module, nn.MaxPool2d) for module in modules)
    is_published_vgg = isinstance(backbone.network, VGG) and num_poolings == VGG_POOLINGS
    return is_published_vgg and spec.image_size == SSD300_SIZE


class ExtraFeatureMaps(nn.Module):
    """Maps (N, C, H, W) to feature maps of a backbone and coarser ones, each by a strided block.

    Args:
        backbone: any backbone.
        channels: channels of the added feature maps.
        image_size: (height, width) in pixels.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        channels: int,
        image_size: tuple[int, int],
    ) -> None:
        super().__init__()
        stages = []
        for stage in backbone.stages:
            if stage.stride >= MIN_STRIDE:
                stages.append(stage)
        stages = stages[:MAX_FEATURE_MAPS] or [backbone.stages[-1]]
        self.names = [stage.name for stage in stages]
        self.body = backbone.features(self.names)
        self.channels = [stage.channels for stage in stages]
        self.extra = nn.ModuleList()
        side = ceil(max(image_size) / stages[-1].stride)
        while side > 1 and len(self.channels) < MAX_FEATURE_MAPS:
            self.extra.append(_downsample_block(self.channels[-1], channels))
            self.channels.append(channels)
            side = ceil(side / 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(images)
        maps = [features[name] for name in self.names]
        for block in self.extra:
            maps.append(block(maps[-1]))
        return OrderedDict((str(level), feature_map) for level, feature_map in enumerate(maps))


def _downsample_block(in_channels: int, out_channels: int) -> nn.Module:
    block = nn.Sequential(
        nn.Conv2d(in_channels, out_channels // 2, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels // 2, out_channels, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
    )
    for layer in block:
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # it has one
    return block
