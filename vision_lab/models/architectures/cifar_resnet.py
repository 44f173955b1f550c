"""The small residual networks for 32-pixel pictures: ResNet-20, 32, 44, 56 and 110.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015, section 4.2.
https://arxiv.org/abs/1512.03385

One 3x3 convolution, three stages of n blocks with 16, 32 and 64 filters on maps of the full, half and quarter size,
global average pooling, one linear layer: 6n + 2 layers. Shortcuts have no parameters (the paper's option A). The
attribute names are those of torchvision's ResNet, whose basic block is used as it is.
"""

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from vision_lab.core.arguments import ArgumentError, Range


class ZeroPadShortcut(nn.Module):
    """Option A: keep every second pixel of each row and column, append channels of zeros.

    (N, C, H, W) -> (N, C + extra_channels, ceil(H / 2), ceil(W / 2)).
    """

    def __init__(self, extra_channels: int) -> None:
        super().__init__()
        self.extra_channels = extra_channels

    def forward(self, x: Tensor) -> Tensor:
        half = self.extra_channels // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, self.extra_channels - half))


class CifarResNet(nn.Module):
    """A residual network of ``depth`` = 6n + 2 layers.

    Input (N, 3, H, W), made for H = W = 32; output (N, num_classes) logits.

    Raises:
        ArgumentError: where ``depth`` is not 6n + 2; 1202 is the deepest of the paper.
    """

    def __init__(
        self, *, depth: Annotated[int, Range(ge=8, le=1202)], num_classes: int = 10
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ArgumentError("depth", depth, "6n + 2, such as 20, 32, 44, 56 or 110")
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(16, 16, blocks)
        self.layer2 = _stage(16, 32, blocks)
        self.layer3 = _stage(32, 64, blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(channels_in: int, channels: int, blocks: int) -> nn.Sequential:
    first = (
        BasicBlock(channels_in, channels)
        if channels_in == channels
        else BasicBlock(
            channels_in, channels, stride=2, downsample=ZeroPadShortcut(channels - channels_in)
        )
    )
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))
