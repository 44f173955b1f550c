"""R-CNN and Fast R-CNN: a network that classifies the proposals of selective search.

Girshick, Donahue, Darrell, Malik: Rich Feature Hierarchies for Accurate Object Detection and
Semantic Segmentation, 2014. https://arxiv.org/abs/1311.2524
Girshick: Fast R-CNN, 2015. https://arxiv.org/abs/1504.08083

R-CNN computes the features of each proposal from its pixels, Fast R-CNN from feature maps that all
proposals of an image share. Both are trained here with the losses of the second paper, softmax and
smooth L1, where the first one trains a support vector machine and a linear regression of boxes on
fixed features. Proposals are cut out by RoIAlign (He 2017).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign

from vision_lab.core.arguments import ArgumentError, Count, Fraction, Range, Width
from vision_lab.core.checking import check_arguments
from vision_lab.core.protocols import Backbone, Stage
from vision_lab.core.spec import DataSpec
from vision_lab.core.text import first_line
from vision_lab.heads.selective_search import SelectiveSearch, Strategy
from vision_lab.heads.torchvision_detectors import TwoStageMixin, postprocess_arguments

POOLED_SIZE = 7
"""Height and width of the features of a proposal, in cells."""

FOREGROUND_IOU = 0.5
"""IoU with an object at which a proposal is an example of its class, in both papers."""

FOREGROUND_FRACTION = 0.25
"""Maximum fraction of examples of classes among the proposals to train on, in both papers."""

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Weights of the four terms of box regression, as in torchvision."""

MaxProposals = Annotated[int, Range(ge=2, le=100_000)]


class ProposalDetector(TwoStageMixin, GeneralizedRCNN):
    """A detector on given proposals, made of torchvision's parts.

    Args:
        backbone: maps images to the maps that proposals are cut from.
        proposals: finds proposals in normalized images.
        roi_heads: classifies proposals and corrects their boxes.
    """

    def __init__(
        self, backbone: nn.Module, proposals: SelectiveSearch, roi_heads: RoIHeads
    ) -> None:
        super().__init__(backbone, GivenProposals(proposals), roi_heads, nn.Identity())


class GivenProposals(nn.Module):
    """Takes the place of a region proposal network.

    Args:
        search: finds proposals in normalized images.
    """

    def __init__(self, search: SelectiveSearch) -> None:
        super().__init__()
        self.search = search

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],  # noqa: ARG002 - of the network it takes the place of
        targets: object = None,  # noqa: ARG002
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the proposals of each image, (n, 4) in pixels, and no losses."""
        return self.search(images.tensors), {}


class Pixels(nn.Module):
    """Maps images to themselves, as the only feature map."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"0": images}


class SharedMap(nn.Module):
    """Maps images to one feature map of a backbone.

    Args:
        backbone: the backbone.
        stage: the feature map.
    """

    def __init__(self, backbone: Backbone, stage: Stage) -> None:
        super().__init__()
        self.body = backbone.features([stage.name])
        self.name = stage.name

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"0": self.body(images)[self.name]}


class WindowFeatures(nn.Module):
    """Maps windows of pixels (n, C, s, s) to the mean of a backbone's last feature map, (n, D).

    Args:
        backbone: the backbone.
        stage: its last feature map.
    """

    def __init__(self, backbone: Backbone, stage: Stage) -> None:
        super().__init__()
        self.body = backbone.features([stage.name])
        self.name = stage.name

    def forward(self, windows: Tensor) -> Tensor:
        return self.body(windows)[self.name].mean(dim=(2, 3))


@check_arguments
def rcnn(
    backbone: Backbone,
    spec: DataSpec,
    *,
    window_size: Annotated[int, Range(ge=8, le=1024)] = 64,
    strategy: Strategy = "fast",
    max_proposals: MaxProposals = 2000,
    box_batch_size_per_image: Count = 32,
    score_threshold: Fraction = 0.05,
    nms_threshold: Fraction = 0.3,
    detections_per_image: Count = 100,
) -> nn.Module:
    """Build R-CNN: the pixels of each proposal, resized, through the whole backbone.

    Args:
        backbone: any backbone with feature maps.
        spec: spec of the data.
        window_size: side to which proposals are resized, in pixels; 227 in the paper.
        strategy: strategy of selective search.
        max_proposals: maximum number of proposals of an image.
        box_batch_size_per_image: number of proposals of an image to train on.
        score_threshold: detections with a lower score are discarded.
        nms_threshold: IoU above which non-maximum suppression drops the lower-scoring box of a
            class.
        detections_per_image: maximum number of detections, those with the highest scores.

    Raises:
        ArgumentError: if the backbone does not run on windows of this size.
    """
    stage = backbone.stages[-1]
    window_features = WindowFeatures(backbone, stage)
    _check_window_size(window_features, window_size, channels=spec.channels)
    roi_heads = RoIHeads(
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=window_size, sampling_ratio=1),
        box_head=window_features,
        box_predictor=FastRCNNPredictor(stage.channels, spec.num_classes + 1),
        **_training_arguments(box_batch_size_per_image),
        **postprocess_arguments(score_threshold, nms_threshold, detections_per_image),
    )
    search = _make_search(spec, strategy, max_proposals)
    return ProposalDetector(Pixels(), search, roi_heads)


@check_arguments
def fast_rcnn(
    backbone: Backbone,
    spec: DataSpec,
    *,
    stride: Count = 8,
    representation_size: Width = 512,
    strategy: Strategy = "fast",
    max_proposals: MaxProposals = 2000,
    box_batch_size_per_image: Count = 64,
    score_threshold: Fraction = 0.05,
    nms_threshold: Fraction = 0.3,
    detections_per_image: Count = 100,
) -> nn.Module:
    """Build Fast R-CNN: proposals on one feature map, and two fully connected layers.

    Args:
        backbone: a backbone with a feature map of at most this stride.
        spec: spec of the data.
        stride: maximum number of image pixels per pixel of the feature map, which is the coarsest
            with at most so many; 16 in the paper.
        representation_size: width of the fully connected layers; 4096 in the paper.
        strategy: strategy of selective search.
        max_proposals: maximum number of proposals of an image.
        box_batch_size_per_image: number of proposals of an image to train on.
        score_threshold: detections with a lower score are discarded.
        nms_threshold: IoU above which non-maximum suppression drops the lower-scoring box of a
            class.
        detections_per_image: maximum number of detections, those with the highest scores.

    Raises:
        ArgumentError: if the backbone has no such feature map.
    """
    fitting = [stage for stage in backbone.stages if stage.stride <= stride]
    if not fitting:
        strides = ", ".join(str(stage.stride) for stage in backbone.stages)
        raise ArgumentError("stride", stride, f"one of {strides}, those of this model")
    stage = fitting[-1]
    roi_heads = RoIHeads(
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=POOLED_SIZE, sampling_ratio=2),
        box_head=TwoMLPHead(stage.channels * POOLED_SIZE**2, representation_size),
        box_predictor=FastRCNNPredictor(representation_size, spec.num_classes + 1),
        **_training_arguments(box_batch_size_per_image),
        **postprocess_arguments(score_threshold, nms_threshold, detections_per_image),
    )
    search = _make_search(spec, strategy, max_proposals)
    return ProposalDetector(SharedMap(backbone, stage), search, roi_heads)


def _make_search(spec: DataSpec, strategy: Strategy, max_proposals: int) -> SelectiveSearch:
    return SelectiveSearch(
        mean=spec.mean, std=spec.std, strategy=strategy, max_proposals=max_proposals
    )


def _check_window_size(features: WindowFeatures, size: int, *, channels: int) -> None:
    """Run the backbone once, so that windows that are too small for it fail before training."""
    was_training = features.training
    try:
        with torch.no_grad():
            features.eval()(torch.zeros(2, channels, size, size))
    except RuntimeError as error:
        needed = f"a larger one: this model does not run on such images ({first_line(error)})"
        raise ArgumentError("window_size", size, needed) from error
    features.train(was_training)


def _training_arguments(batch_size_per_image: int) -> dict[str, object]:
    return {
        "fg_iou_thresh": FOREGROUND_IOU,
        "bg_iou_thresh": FOREGROUND_IOU,
        "batch_size_per_image": batch_size_per_image,
        "positive_fraction": FOREGROUND_FRACTION,
        "bbox_reg_weights": BOX_WEIGHTS,
    }
