"""Fully convolutional networks.

Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, 2015.
https://arxiv.org/abs/1411.4038
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from vision_lab.core.arguments import Fraction, Width
from vision_lab.core.checking import check_arguments
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.segmentation import SegmentationNetwork, segmentation_network, upsample_to


@check_arguments
def fcn(
    backbone: Backbone, spec: DataSpec, *, output_stride: int | None = 8, aux_loss: bool = True
) -> SegmentationNetwork:
    """Put torchvision's FCN head, a 3x3 convolution and a classifier, on a dilated backbone.

    Args:
        backbone: a backbone with at least two stages.
        spec: spec of the data.
        output_stride: maximum stride of the feature maps (8 in torchvision); None for the
            backbone's own.
        aux_loss: whether to train another such head on the feature map before the last.
    """
    return segmentation_network(
        backbone,
        spec,
        FCNHead(backbone.stages[-1].channels, spec.num_classes),
        output_stride=output_stride,
        aux_loss=aux_loss,
    )


@check_arguments
def fcn8s(
    backbone: Backbone, spec: DataSpec, *, fc_channels: Width | None = None, dropout: Fraction = 0.5
) -> FCN8s:
    """Put the paper's FCN-8s on a backbone: coarse logits are upsampled and added to finer ones.

    Args:
        backbone: a backbone with at least three stages; strides 32, 16 and 8 in the paper.
        spec: spec of the data.
        fc_channels: channels of the two convolutions, 7x7 and 1x1, that replace VGG's fully
            connected layers (4096 in the paper); None to classify the last feature map directly.
        dropout: dropout probability after each of the two.
    """
    return FCN8s(backbone, spec.num_classes, fc_channels=fc_channels, dropout=dropout)


class FCN8s(nn.Module):
    """Maps (N, C, H, W) to (N, K, H, W) logits.

    Feature maps are the last of their strides: of VGG, those before its fourth and fifth pooling,
    where the paper uses the results of the third and fourth. The two convolutions are initialized
    randomly, not with VGG's weights. The paper pads images by 100 pixels and crops the logits; here
    convolutions are padded. As in the paper, classifiers of finer maps are initialized with zero,
    and upsampling as bilinear interpolation, which is not learned in the last step.

    Args:
        backbone: a backbone with at least three stages.
        num_classes: number of classes K.
        fc_channels: see ``fcn8s``.
        dropout: see ``fcn8s``.
    """

    def __init__(
        self, backbone: Backbone, num_classes: int, *, fc_channels: int | None, dropout: float
    ) -> None:
        super().__init__()
        fine, middle, coarse = backbone.stages[-3:]
        self.names = tuple(stage.name for stage in (fine, middle, coarse))
        self.backbone = backbone.features(self.names)
        self.fully_connected = nn.Sequential()
        if fc_channels:
            self.fully_connected = nn.Sequential(
                nn.Conv2d(coarse.channels, fc_channels, 7, padding=3),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Conv2d(fc_channels, fc_channels, 1),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
            )
        self.score_coarse = nn.Conv2d(fc_channels or coarse.channels, num_classes, 1)
        self.score_middle = _zero_init(nn.Conv2d(middle.channels, num_classes, 1))
        self.score_fine = _zero_init(nn.Conv2d(fine.channels, num_classes, 1))
        self.upsample_coarse = _bilinear_upsampling(num_classes)
        self.upsample_middle = _bilinear_upsampling(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images)
        fine, middle, coarse = (features[name] for name in self.names)
        logits = self.score_coarse(self.fully_connected(coarse))
        logits = upsample_to(self.upsample_coarse(logits), middle) + self.score_middle(middle)
        logits = upsample_to(self.upsample_middle(logits), fine) + self.score_fine(fine)
        return upsample_to(logits, images)


def _zero_init(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _bilinear_upsampling(num_classes: int) -> nn.ConvTranspose2d:
    """Return a layer that upsamples by 2, initialized as bilinear interpolation of each class."""
    layer = nn.ConvTranspose2d(
        num_classes,
        num_classes,
        4,
        stride=2,
        padding=1,
        bias=False,
    )
    kernel = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(num_classes):
            layer.weight[channel, channel] = torch.outer(kernel, kernel)
    return layer
