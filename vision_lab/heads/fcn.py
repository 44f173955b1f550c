"""Fully convolutional networks (Long, Shelhamer, Darrell 2015: https://arxiv.org/abs/1411.4038)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from vision_lab.core.arguments import Fraction, Width
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec
from vision_lab.heads.segmentation import SegmentationNetwork, segmentation_network, upsample_to


def fcn(
    backbone: Backbone, spec: DataSpec, *, output_stride: int | None, aux_loss: bool
) -> SegmentationNetwork:
    """torchvision's form: a 3x3 convolution to a quarter of the channels, then the scores, on a dilated backbone.

    Args:
        backbone: any with two maps.
        spec: the data's.
        output_stride: no map's stride is larger (8 in torchvision's); None leaves the backbone as it is.
        auxiliary: another such head on the map before the last, while training.
    """
    return segmentation_network(
        backbone,
        spec,
        FCNHead(backbone.stages[-1].channels, spec.num_classes),
        output_stride=output_stride,
        auxiliary=aux_loss,
    )


def fcn8s(
    backbone: Backbone, spec: DataSpec, *, fc_channels: Width | None, dropout: Fraction
) -> FCN8s:
    """The paper's skip form: scores of the last three maps, the coarser enlarged twofold and added to the finer.

    Args:
        backbone: any with three maps; strides 32, 16 and 8 in the paper.
        spec: the data's.
        hidden: channels of the two convolutions, 7x7 and 1x1, that stand for VGG's fully connected layers (4096 in the
            paper); None scores the last map directly, for backbones without such layers.
        dropout: behind each of the two.
    """
    return FCN8s(backbone, spec.num_classes, hidden=fc_channels, dropout=dropout)


class FCN8s(nn.Module):
    """(N, C, H, W) -> (N, K, H, W) logits.

    The maps are the last of their strides: of VGG's those that its fourth and fifth pooling take in, where the paper
    scores what its third and fourth give out. The two convolutions begin at random, not with VGG's weights.
    Where the paper pads pictures by 100 pixels and crops the scores, convolutions are padded here. As in the paper the
    scores of the finer maps begin at zero, enlarging by learnt filters begins as bilinear, and the last is not learnt.
    """

    def __init__(
        self, backbone: Backbone, classes: int, *, hidden: int | None, dropout: float
    ) -> None:
        super().__init__()
        fine, middle, coarse = backbone.stages[-3:]
        self.names = tuple(stage.name for stage in (fine, middle, coarse))
        self.backbone = backbone.features(self.names)
        width = hidden or coarse.channels
        self.fully_connected = nn.Sequential()
        if hidden:
            self.fully_connected = nn.Sequential(
                *(
                    nn.Conv2d(coarse.channels, hidden, 7, padding=3),
                    nn.ReLU(inplace=True),
                    nn.Dropout(dropout),
                ),
                *(nn.Conv2d(hidden, hidden, 1), nn.ReLU(inplace=True), nn.Dropout(dropout)),
            )
        self.score_coarse = nn.Conv2d(width, classes, 1)
        self.score_middle = _zero(nn.Conv2d(middle.channels, classes, 1))
        self.score_fine = _zero(nn.Conv2d(fine.channels, classes, 1))
        self.enlarge_coarse = _bilinear(classes)
        self.enlarge_middle = _bilinear(classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone(images)
        fine, middle, coarse = (maps[name] for name in self.names)
        scores = self.score_coarse(self.fully_connected(coarse))
        scores = upsample_to(self.enlarge_coarse(scores), middle) + self.score_middle(middle)
        scores = upsample_to(self.enlarge_middle(scores), fine) + self.score_fine(fine)
        return upsample_to(scores, images)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _bilinear(classes: int) -> nn.ConvTranspose2d:
    """Twofold enlarging, each class by itself at first, by weights that are learnt from there."""
    layer = nn.ConvTranspose2d(classes, classes, 4, stride=2, padding=1, bias=False)
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(classes):
            layer.weight[channel, channel] = torch.outer(line, line)
    return layer
