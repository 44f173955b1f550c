"""The encoder of U-Net."""

import torch

from vision_lab.models.architectures.unet import UNetEncoder
from vision_lab.models.backbone import ClassifierBackbone


def test_the_levels_are_those_of_the_paper():
    made = UNetEncoder(num_classes=3)
    stages = ClassifierBackbone(made, channels=3, loaded=None).stages
    assert [(stage.name, stage.channels, stage.stride) for stage in stages] == [
        (f"level{level}", 64 * 2 ** (level - 1), 2 ** (level - 1)) for level in range(1, 6)
    ]
    assert made(torch.rand(2, 3, 33, 47)).shape == (2, 3)
    assert [module.p for module in made.modules() if isinstance(module, torch.nn.Dropout)] == [
        0.5,
        0.5,
    ]


def test_encoder_width_and_levels():
    made = UNetEncoder(num_classes=3, base_channels=8, levels=3, dropout=0.0)
    stages = ClassifierBackbone(made, channels=3, loaded=None).stages
    assert [stage.channels for stage in stages] == [8, 16, 32]
