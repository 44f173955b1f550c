"""RetinaNet, with the numbers of ``retinanet_resnet50_fpn``.

Lin, Goyal, Girshick, He, Dollár: Focal Loss for Dense Object Detection, 2017.
https://arxiv.org/abs/1708.02002
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from vision_lab.core.arguments import ArgumentError, Count, Fraction, Width
from vision_lab.core.checking import check_arguments
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.fpn import BackboneWithFPN, StrideAnchorGenerator
from vision_lab.heads.torchvision_detectors import RetinaNet, postprocess_arguments

NORM_GROUPS = 32
"""Groups of group norm, as in torchvision's second version."""

ANCHORS_PER_CELL = 9


@check_arguments
def retinanet(
    backbone: Backbone,
    spec: DataSpec,
    *,
    channels: Width = 256,
    anchor_scale: Count = 4,
    norm: Literal["group"] | None = None,
    score_threshold: Fraction = 0.05,
    nms_threshold: Fraction = 0.5,
    detections_per_image: Count = 300,
) -> nn.Module:
    """Put RetinaNet on feature maps of stride 8 or more, and two by convolution.

    Args:
        backbone: a backbone with at least two stages.
        spec: spec of the data.
        channels: channels of the feature pyramid.
        anchor_scale: side of the smallest anchor, in strides of its feature map; the others are
            1.26 and 1.59 times as large.
        norm: None as in the paper; or "group" for group norm in the head, as in torchvision's
            second version: without it, training from scratch takes thousands of steps to start.
        score_threshold: detections with a lower score are discarded.
        nms_threshold: IoU above which non-maximum suppression drops the lower-scoring box of a
            class.
        detections_per_image: maximum number of detections, those with the highest scores.

    Raises:
        ArgumentError: if channels cannot be grouped.
        ConfigurationError: if the backbone has a single stage.
    """
    if norm and channels % NORM_GROUPS:
        needed = f"null, or group with channels that are a multiple of {NORM_GROUPS}"
        raise ArgumentError("norm", norm, needed)
    pyramid = BackboneWithFPN(
        backbone,
        min_stride=8,
        out_channels=channels,
        extra_blocks=LastLevelP6P7(channels, channels),
        extra_factors=[2, 4],
    )
    sizes = []
    for stride in pyramid.strides:
        side = anchor_scale * stride
        sizes.append([side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))])
    norm_layer = partial(nn.GroupNorm, NORM_GROUPS) if norm else None

    def make_head(num_classes: int) -> nn.Module:
        return RetinaNetHead(channels, ANCHORS_PER_CELL, num_classes, norm_layer=norm_layer)

    return RetinaNet(
        pyramid,
        spec.num_classes,
        make_head=make_head,
        anchor_generator=StrideAnchorGenerator(sizes, (0.5, 1.0, 2.0), strides=pyramid.strides),
        **postprocess_arguments(score_threshold, nms_threshold, detections_per_image),
    )
