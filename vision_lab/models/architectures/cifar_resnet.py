"""Residual networks for 32-pixel images: ResNet-20, 32, 44, 56 and 110.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015, section 4.2.
https://arxiv.org/abs/1512.03385

One 3x3 convolution, three stages of n blocks with 16, 32 and 64 channels at full, half and quarter
size, global average pooling, and a linear layer: 6n + 2 layers. Shortcuts have no parameters
(option A of the paper). Attribute names are those of torchvision's ResNet, whose basic block is
used unchanged.
"""

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from vision_lab.core.arguments import ArgumentError, Range


class ZeroPadShortcut(nn.Module):
    """Option A: subsampling by 2, with additional channels of zeros.

    Maps (N, C, H, W) to (N, C + extra_channels, ceil(H / 2), ceil(W / 2)).

    Args:
        extra_channels: number of additional channels.
    """

    def __init__(self, extra_channels: int) -> None:
        super().__init__()
        self.extra_channels = extra_channels

    def forward(self, x: Tensor) -> Tensor:
        before = self.extra_channels // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.extra_channels - before))


class CifarResNet(nn.Module):
    """Maps images (N, 3, H, W), ideally with H = W = 32, to (N, num_classes) logits.

    Args:
        depth: number of layers, 6n + 2; 1202 is the maximum in the paper.
        num_classes: number of classes.

    Raises:
        ArgumentError: if ``depth`` is not 6n + 2.
    """

    def __init__(
        self, *, depth: Annotated[int, Range(ge=8, le=1202)], num_classes: int = 10
    ) -> None:
        super().__init__()
        num_blocks, remainder = divmod(depth - 2, 6)
        if remainder or num_blocks < 1:
            raise ArgumentError("depth", depth, "6n + 2, such as 20, 32, 44, 56 or 110")
        self.conv1 = nn.Conv2d(
            3,
            16,
            kernel_size=3,
            padding=1,
            bias=False,
        )
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _make_stage(16, 16, num_blocks)
        self.layer2 = _make_stage(16, 32, num_blocks)
        self.layer3 = _make_stage(32, 64, num_blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def _make_stage(
    in_channels: int,
    channels: int,
    num_blocks: int,
) -> nn.Sequential:
    if in_channels == channels:
        first = BasicBlock(in_channels, channels)
    else:
        shortcut = ZeroPadShortcut(channels - in_channels)
        first = BasicBlock(in_channels, channels, stride=2, downsample=shortcut)
    others = [BasicBlock(channels, channels) for _ in range(num_blocks - 1)]
    return nn.Sequential(first, *others)
