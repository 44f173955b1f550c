"""FCOS, an anchor-free detector, with the numbers of ``fcos_resnet50_fpn``.

Tian, Shen, Chen, He: FCOS: Fully Convolutional One-Stage Object Detection, 2019.
https://arxiv.org/abs/1904.01355
"""

from __future__ import annotations

from typing import Annotated

from torch import nn
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from vision_lab.core.arguments import MAX_WIDTH, Count, Fraction, Range
from vision_lab.core.checking import check_arguments
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.fpn import BackboneWithFPN, StrideAnchorGenerator
from vision_lab.heads.torchvision_detectors import FCOS, postprocess_arguments

NORM_GROUPS = 32
"""Groups of group norm in torchvision's head."""

GroupedWidth = Annotated[int, Range(ge=1, le=MAX_WIDTH, multiple_of=NORM_GROUPS)]


@check_arguments
def fcos(
    backbone: Backbone,
    spec: DataSpec,
    *,
    channels: GroupedWidth = 256,
    score_threshold: Fraction = 0.05,
    nms_threshold: Fraction = 0.6,
    detections_per_image: Count = 100,
) -> nn.Module:
    """Put FCOS on feature maps of stride 8 or more, and two by convolution.

    Args:
        backbone: a backbone with at least two stages.
        spec: spec of the data.
        channels: channels of the feature pyramid.
        score_threshold: detections with a lower score are discarded.
        nms_threshold: IoU above which non-maximum suppression drops the lower-scoring box of a
            class.
        detections_per_image: maximum number of detections, those with the highest scores.

    Raises:
        ConfigurationError: if the backbone has a single stage.
    """
    pyramid = BackboneWithFPN(
        backbone,
        min_stride=8,
        out_channels=channels,
        extra_blocks=LastLevelP6P7(channels, channels),
        extra_factors=[2, 4],
    )
    # torchvision calls the square of a grid cell an anchor.
    sizes = [[stride] for stride in pyramid.strides]
    return FCOS(
        pyramid,
        spec.num_classes,
        anchor_generator=StrideAnchorGenerator(sizes, (1.0,), strides=pyramid.strides),
        **postprocess_arguments(score_threshold, nms_threshold, detections_per_image),
    )
