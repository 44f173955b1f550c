"""DeepLabV3 (Chen, Papandreou, Schroff, Adam 2017: https://arxiv.org/abs/1706.05587), in torchvision's form."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from vision_lab.core.arguments import Counts
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.segmentation import SegmentationNetwork, segmentation_network


def deeplabv3(
    backbone: Backbone,
    spec: DataSpec,
    *,
    output_stride: int | None,
    atrous_rates: Counts,
    aux_loss: bool,
) -> SegmentationNetwork:
    """Convolutions of several dilations side by side, with the mean over the picture, on a dilated backbone.

    Args:
        backbone: any with two maps.
        spec: the data's.
        output_stride: no map's stride is larger; None leaves the backbone as it is.
        rates: the dilations: 12, 24, 36 for an output stride of 8, and half of them for 16 (section 3.3).
        auxiliary: an FCN head on the map before the last, while training.
    """
    head = DeepLabHead(
        backbone.stages[-1].channels, spec.num_classes, atrous_rates=tuple(atrous_rates)
    )
    pooling = head[0].convs[-1]
    pooling[2] = SinglePixelBatchNorm(
        pooling[2].num_features
    )  # behind the mean over the picture and its convolution
    return segmentation_network(
        backbone, spec, head, output_stride=output_stride, auxiliary=aux_loss
    )


class SinglePixelBatchNorm(nn.BatchNorm2d):
    """Batch norm of maps of one pixel, which takes a batch of one picture too: by the statistics of those before it."""

    def forward(self, input: Tensor) -> Tensor:
        if len(input) > 1:
            return super().forward(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
