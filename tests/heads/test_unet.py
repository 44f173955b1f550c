"""U-Net: the paper's own widths, and any backbone's maps."""

from collections.abc import Callable

import torch

from vision_lab.heads.unet import unet
from vision_lab.models.backbone import ClassifierBackbone
from vision_lab.models.unet import ContractingPath
from vision_lab.types import DataSpec


def test_on_its_own_path_it_is_the_paper(mask_spec: DataSpec):
    backbone = ClassifierBackbone(ContractingPath(num_classes=5), channels=3, loaded=None)
    made = unet(backbone, mask_spec, widest=512)
    ups = [tuple(level.up.weight.shape) for level in made.levels]
    assert ups == [(1024, 512, 2, 2), (512, 256, 2, 2), (256, 128, 2, 2), (128, 64, 2, 2)]
    assert tuple(made.levels[0].convolutions[0].weight.shape) == (512, 1024, 3, 3)
    assert tuple(made.classifier.weight.shape) == (5, 64, 1, 1)
    assert 31_000_000 < sum(parameter.numel() for parameter in made.parameters()) < 31_100_000


def test_levels_are_no_wider_than_asked(make_backbone: Callable, mask_spec: DataSpec):
    made = unet(make_backbone("resnet18"), mask_spec, widest=32)
    assert [level.up.out_channels for level in made.levels] == [32, 32, 32, 32]
    output = made(torch.rand(2, 3, 65, 90))
    assert output.shape == (2, 5, 65, 90)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
