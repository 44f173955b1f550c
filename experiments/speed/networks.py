"""Networks with little or almost no computation."""

from torch import nn


class Tiny(nn.Sequential):
    """(N, 3, H, W) -> (N, num_classes): almost no computation, so that reading decides."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(3, 8, kernel_size=8, stride=8),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, num_classes),
        )


class TwoLayers(nn.Sequential):
    """(N, 1, 28, 28) -> (N, num_classes): two convolutions, as in the first example of a tutorial."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(1, 16, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, num_classes),
        )
