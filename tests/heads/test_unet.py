"""U-Net: the widths of the paper, and other backbones."""

from collections.abc import Callable

import pytest
import torch

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.spec import DataSpec
from vision_lab.heads.unet import unet
from vision_lab.models.architectures.unet import UNetEncoder
from vision_lab.models.backbone import ClassifierBackbone


def test_the_encoder_alone_equals_the_paper(mask_spec: DataSpec):
    backbone = ClassifierBackbone(UNetEncoder(num_classes=5), channels=3, loaded=None)
    made = unet(backbone, mask_spec, decoder_channels=[512, 256, 128, 64])
    ups = [tuple(level.up.weight.shape) for level in made.levels]
    assert ups == [(1024, 512, 2, 2), (512, 256, 2, 2), (256, 128, 2, 2), (128, 64, 2, 2)]
    assert tuple(made.levels[0].convs[0].weight.shape) == (512, 1024, 3, 3)
    assert tuple(made.classifier.weight.shape) == (5, 64, 1, 1)
    assert 31_000_000 < sum(parameter.numel() for parameter in made.parameters()) < 31_100_000


def test_levels_have_the_configured_channels(make_backbone: Callable, mask_spec: DataSpec):
    made = unet(make_backbone("resnet18"), mask_spec, decoder_channels=[64, 32, 16, 8, 4])
    assert [level.up.out_channels for level in made.levels] == [64, 32, 16, 8]
    output = made(torch.rand(2, 3, 65, 90))
    assert output.shape == (2, 5, 65, 90)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_too_few_levels(make_backbone: Callable, mask_spec: DataSpec):
    with pytest.raises(ArgumentError) as caught:
        unet(make_backbone("vgg11_bn"), mask_spec, decoder_channels=[64, 32])
    assert str(caught.value) == (
        "decoder_channels=[64,32]: type a number of channels for each of the 5 levels of this model, "
        "as in [256,128,64,32,16]"
    )
