"""A small network with dropout and batch norm."""

from torch import nn

from vision_lab.models.architectures.cifar_resnet import CifarResNet


class DropoutResNet(CifarResNet):
    """ResNet-20 with dropout before the last layer."""

    def __init__(self, *, num_classes: int = 10) -> None:
        super().__init__(depth=20, num_classes=num_classes)
        self.avgpool = nn.Sequential(self.avgpool, nn.Dropout(0.2))
