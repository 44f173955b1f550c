"""RetinaNet (Lin 2017: https://arxiv.org/abs/1708.02002): focal loss at anchors of a feature pyramid."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from vision_lab.core.arguments import Count, Fraction, Width
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.fpn import BackboneWithFPN, StrideAnchorGenerator
from vision_lab.heads.torchvision_detectors import RetinaNet, postprocess_arguments

NORM_GROUPS = 32
"""Of the normalisation, as in torchvision's second version."""


def retinanet(
    backbone: Backbone,
    spec: DataSpec,
    *,
    channels: Width,
    anchor_scale: Count,
    norm: Literal["group"] | None,
    score_threshold: Fraction,
    nms_threshold: Fraction,
    detections_per_image: Count,
) -> nn.Module:
    """Maps of stride 8 and more, or the two coarsest, and two by convolution; as ``retinanet_resnet50_fpn`` to the bit.

    Args:
        backbone: any with two maps.
        spec: its number of classes is used.
        width: channels of the pyramid's maps.
        anchor_scale: the smallest anchor's side in strides of its map; the others are 1.26 and 1.59 times as large.
        norm: None as published; or group normalisation between the head's convolutions, as in torchvision's second
            version: without any it needs thousands of steps, or learnt weights, to begin with.
        score_threshold: what is less sure is not told.
        nms_threshold: of two of a class that overlap more (IoU), the less sure is dropped.
        detections_per_image: the surest so many are told.

    Raises:
        ConfigurationError: where the channels cannot be grouped or the backbone has a single map.
    """
    if norm and channels % NORM_GROUPS:
        raise ConfigurationError(
            f"head.norm={norm}: type null, or group with a head.channels that {NORM_GROUPS} divides"
        )
    pyramid = BackboneWithFPN(
        backbone, finest=8, width=channels, extra=LastLevelP6P7(channels, channels), coarser=[2, 4]
    )
    sides = [anchor_scale * stride for stride in pyramid.strides]
    sizes = [[side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))] for side in sides]
    norm_layer = partial(nn.GroupNorm, NORM_GROUPS) if norm else None
    return RetinaNet(
        pyramid,
        spec.num_classes,
        head=lambda classes: RetinaNetHead(channels, 9, classes, norm_layer=norm_layer),
        anchor_generator=StrideAnchorGenerator(sizes, (0.5, 1.0, 2.0), strides=pyramid.strides),
        **postprocess_arguments(score_threshold, nms_threshold, detections_per_image),
    )
