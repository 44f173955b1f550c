"""FCOS (Tian 2019: https://arxiv.org/abs/1904.01355): distances to the four sides, without anchors."""

from __future__ import annotations

from typing import Annotated

from torch import nn
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from vision_lab.core.arguments import MAX_WIDTH, Count, Fraction, Range
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.fpn import BackboneWithFPN, StrideAnchorGenerator
from vision_lab.heads.torchvision_detectors import FCOS, postprocess_arguments

NORM_GROUPS = 32
"""Of torchvision's normalisation in the head."""


def fcos(
    backbone: Backbone,
    spec: DataSpec,
    *,
    channels: Annotated[int, Range(ge=1, le=MAX_WIDTH, multiple_of=NORM_GROUPS)],
    score_threshold: Fraction,
    nms_threshold: Fraction,
    detections_per_image: Count,
) -> nn.Module:
    """Maps of stride 8 and more, or the two coarsest, and two by convolution; as ``fcos_resnet50_fpn`` to the bit.

    Args:
        backbone: any with two maps.
        spec: its number of classes is used.
        width: channels of the pyramid's maps.
        score_threshold: what is less sure is not told.
        nms_threshold: of two of a class that overlap more (IoU), the less sure is dropped.
        detections_per_image: the surest so many are told.

    Raises:
        ConfigurationError: where the backbone has a single map.
    """
    pyramid = BackboneWithFPN(
        backbone, finest=8, width=channels, extra=LastLevelP6P7(channels, channels), coarser=[2, 4]
    )
    # What torchvision calls an anchor is the square of a cell.
    cells = StrideAnchorGenerator(
        [[stride] for stride in pyramid.strides], (1.0,), strides=pyramid.strides
    )
    return FCOS(
        pyramid,
        spec.num_classes,
        anchor_generator=cells,
        **postprocess_arguments(score_threshold, nms_threshold, detections_per_image),
    )
