"""Faster R-CNN on a feature pyramid, with the numbers of ``fasterrcnn_resnet50_fpn``.

Ren, He, Girshick, Sun: Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
Networks, 2015. https://arxiv.org/abs/1506.01497
"""

from __future__ import annotations

from torch import nn
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from vision_lab.core.arguments import Count, Fraction, Width
from vision_lab.core.checking import check_arguments
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.fpn import BackboneWithFPN, StrideAnchorGenerator
from vision_lab.heads.torchvision_detectors import FasterRCNN, postprocess_arguments


@check_arguments
def faster_rcnn(
    backbone: Backbone,
    spec: DataSpec,
    *,
    channels: Width = 256,
    anchor_scale: Count = 8,
    rpn_post_nms_top_n: Count = 1000,
    box_batch_size_per_image: Count = 512,
    score_threshold: Fraction = 0.05,
    nms_threshold: Fraction = 0.5,
    detections_per_image: Count = 100,
) -> nn.Module:
    """Put Faster R-CNN on feature maps of stride 4 or more, and one by pooling.

    Args:
        backbone: a backbone with at least two stages.
        spec: spec of the data.
        channels: channels of the feature pyramid.
        anchor_scale: side of an anchor, in strides of its feature map.
        rpn_post_nms_top_n: number of proposals for the second stage; twice as many in training.
        box_batch_size_per_image: number of proposals to train on.
        score_threshold: detections with a lower score are discarded.
        nms_threshold: IoU above which non-maximum suppression drops the lower-scoring box of a
            class.
        detections_per_image: maximum number of detections, those with the highest scores.

    Raises:
        ConfigurationError: if the backbone has a single stage.
    """
    limits = postprocess_arguments(score_threshold, nms_threshold, detections_per_image)
    pyramid = BackboneWithFPN(
        backbone,
        min_stride=4,
        out_channels=channels,
        extra_blocks=LastLevelMaxPool(),
        extra_factors=[2],
    )
    sizes = [[anchor_scale * stride] for stride in pyramid.strides]
    level_names = [str(level) for level in range(len(pyramid.names))]
    return FasterRCNN(
        pyramid,
        spec.num_classes,
        rpn_anchor_generator=StrideAnchorGenerator(sizes, (0.5, 1.0, 2.0), strides=pyramid.strides),
        rpn_pre_nms_top_n_train=2 * rpn_post_nms_top_n,
        rpn_pre_nms_top_n_test=rpn_post_nms_top_n,
        rpn_post_nms_top_n_train=2 * rpn_post_nms_top_n,
        rpn_post_nms_top_n_test=rpn_post_nms_top_n,
        box_batch_size_per_image=box_batch_size_per_image,
        box_roi_pool=MultiScaleRoIAlign(level_names, output_size=7, sampling_ratio=2),
        **{f"box_{name}": limit for name, limit in limits.items()},
    )
