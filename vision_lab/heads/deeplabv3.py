"""DeepLabV3, as in torchvision.

Chen, Papandreou, Schroff, Adam: Rethinking Atrous Convolution for Semantic Image Segmentation,
2017. https://arxiv.org/abs/1706.05587
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from vision_lab.core.arguments import Counts
from vision_lab.core.checking import check_arguments
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.segmentation import SegmentationNetwork, segmentation_network


@check_arguments
def deeplabv3(
    backbone: Backbone,
    spec: DataSpec,
    *,
    output_stride: int | None = 8,
    atrous_rates: Counts = (12, 24, 36),
    aux_loss: bool = True,
) -> SegmentationNetwork:
    """Put atrous spatial pyramid pooling on a dilated backbone.

    Args:
        backbone: a backbone with at least two stages.
        spec: spec of the data.
        output_stride: maximum stride of the feature maps; None for the backbone's own.
        atrous_rates: dilations: 12, 24, 36 for an output stride of 8, half of them for 16 (section
            3.3).
        aux_loss: whether to train an FCN head on the feature map before the last.
    """
    channels = backbone.stages[-1].channels
    head = DeepLabHead(channels, spec.num_classes, atrous_rates=tuple(atrous_rates))
    image_pooling = head[0].convs[-1]
    image_pooling[2] = SinglePixelBatchNorm(image_pooling[2].num_features)
    return segmentation_network(
        backbone, spec, head, output_stride=output_stride, aux_loss=aux_loss
    )


class SinglePixelBatchNorm(nn.BatchNorm2d):
    """Batch norm of maps of one pixel; it uses running statistics for a batch of one image."""

    def forward(self, input: Tensor) -> Tensor:
        if len(input) > 1:
            return super().forward(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
