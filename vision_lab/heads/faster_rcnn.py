"""Faster R-CNN (Ren 2015: https://arxiv.org/abs/1506.01497) over a feature pyramid (Lin 2017)."""

from __future__ import annotations

from torch import nn
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from vision_lab.core.arguments import Count, Fraction, Width
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.fpn import BackboneWithFPN, StrideAnchorGenerator
from vision_lab.heads.torchvision_detectors import FasterRCNN, postprocess_arguments


def faster_rcnn(
    backbone: Backbone,
    spec: DataSpec,
    *,
    channels: Width,
    anchor_scale: Count,
    rpn_post_nms_top_n: Count,
    box_batch_size_per_image: Count,
    score_threshold: Fraction,
    nms_threshold: Fraction,
    detections_per_image: Count,
) -> nn.Module:
    """Maps of stride 4 and more, or the two coarsest, and one by pooling; as ``fasterrcnn_resnet50_fpn`` to the bit.

    Args:
        backbone: any with two maps.
        spec: its number of classes is used.
        width: channels of the pyramid's maps.
        anchor_scale: an anchor's side in strides of its map.
        proposals: of a picture, looked at by the second stage; twice as many while training.
        samples: of these, learnt from.
        score_threshold: what is less sure is not told.
        nms_threshold: of two of a class that overlap more (IoU), the less sure is dropped.
        detections_per_image: the surest so many are told.

    Raises:
        ConfigurationError: where the backbone has a single map.
    """
    told = postprocess_arguments(score_threshold, nms_threshold, detections_per_image)
    pyramid = BackboneWithFPN(
        backbone, finest=4, width=channels, extra=LastLevelMaxPool(), coarser=[2]
    )
    sizes = [[anchor_scale * stride] for stride in pyramid.strides]
    return FasterRCNN(
        pyramid,
        spec.num_classes,
        rpn_anchor_generator=StrideAnchorGenerator(sizes, (0.5, 1.0, 2.0), strides=pyramid.strides),
        rpn_pre_nms_top_n_train=2 * rpn_post_nms_top_n,
        rpn_pre_nms_top_n_test=rpn_post_nms_top_n,
        rpn_post_nms_top_n_train=2 * rpn_post_nms_top_n,
        rpn_post_nms_top_n_test=rpn_post_nms_top_n,
        box_batch_size_per_image=box_batch_size_per_image,
        box_roi_pool=MultiScaleRoIAlign(
            [str(k) for k in range(len(pyramid.names))], output_size=7, sampling_ratio=2
        ),
        **{f"box_{name}": limit for name, limit in told.items()},
    )
