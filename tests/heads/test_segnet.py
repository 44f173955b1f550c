"""SegNet: pooling indices of VGG, mirrored levels, and other backbones."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.spec import DataSpec
from vision_lab.heads.segnet import _max_unpool, segnet


def test_fcn8s_on_vgg16_equals_the_paper(make_backbone: Callable, mask_spec: DataSpec):
    made = segnet(make_backbone("vgg16_bn"), mask_spec, convs_per_level=[3, 3, 3, 2, 2])
    widths = [[m.out_channels for m in level if isinstance(m, nn.Conv2d)] for level in made.levels]
    assert widths == [[512, 512, 512], [512, 512, 256], [256, 256, 128], [128, 64], [64, 5]]
    assert isinstance(made.projection, nn.Identity)
    assert isinstance(made.levels[-1][-1], nn.Conv2d)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in made.levels.modules()) == 12


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 96), (65, 99)])
def test_indices_are_those_of_the_encoders_pooling(
    make_backbone: Callable, mask_spec: DataSpec, size
):
    """The coarsest map is unpooled with the indices of VGG's last pooling."""
    backbone = make_backbone("vgg11_bn")
    *_, fine, coarse = backbone.stages
    maps = backbone.features([fine.name, coarse.name]).eval()(torch.rand(1, 3, *size))
    pooled, places = nn.functional.max_pool2d(maps[fine.name], 2, 2, return_indices=True)
    assert torch.equal(pooled, maps[coarse.name])
    wanted = nn.functional.max_unpool2d(
        pooled, places, 2, 2, output_size=maps[fine.name].shape[-2:]
    )
    found = _max_unpool(maps[coarse.name], maps[fine.name])
    assert torch.equal(found, wanted)
    assert torch.equal(found[found != 0], maps[fine.name][found != 0])


def test_other_backbones(make_backbone: Callable, mask_spec: DataSpec):
    made = segnet(make_backbone("resnet18"), mask_spec, convs_per_level=[1, 1, 1, 1])
    output = made(torch.rand(2, 3, 65, 91))
    assert output.shape == (2, 5, 65, 91)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_too_few_levels(make_backbone: Callable, mask_spec: DataSpec):
    with pytest.raises(ArgumentError) as caught:
        segnet(make_backbone("vgg11_bn"), mask_spec, convs_per_level=[2, 2])
    assert str(caught.value) == (
        "convs_per_level=[2,2]: type a number for each of the 5 levels of this model, as in [2,2,2,2,2]"
    )
