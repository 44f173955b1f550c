"""FCN: bit-exactly torchvision's, and the skips of the paper."""

from collections.abc import Callable

import pytest
import torch
import torchvision

from tests.heads.compare import assert_same_network
from vision_lab.core.spec import DataSpec
from vision_lab.heads.fcn import fcn, fcn8s


@pytest.mark.parametrize("name", ["resnet50", pytest.param("resnet101", marks=pytest.mark.slow)])
def test_the_network_equals_torchvisions(make_backbone: Callable, mask_spec: DataSpec, name: str):
    published = getattr(torchvision.models.segmentation, f"fcn_{name}")(
        weights=None, weights_backbone=None, num_classes=5, aux_loss=True
    )
    made = fcn(make_backbone(name), mask_spec, output_stride=8, aux_loss=True)
    assert_same_network(made, published)


def test_without_auxiliary_head_and_dilation(make_backbone: Callable, mask_spec: DataSpec):
    made = fcn(make_backbone("alexnet"), mask_spec, output_stride=None, aux_loss=False)
    assert made(torch.rand(2, 3, 70, 99)).shape == (2, 5, 70, 99)
    assert not any(key.startswith("aux") for key in made.state_dict())


def test_skips_start_as_bilinear_upsampling(make_backbone: Callable, mask_spec: DataSpec):
    made = fcn8s(make_backbone("vgg11_bn"), mask_spec, fc_channels=None, dropout=0.5).eval()
    images = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        before = made(images)
        made.score_fine.bias.fill_(1.0)
        assert torch.allclose(made(images), before + 1, atol=1e-5)
        coarse = made.score_coarse(made.backbone(images)[made.names[2]])
    assert coarse.shape == (1, 5, 3, 4)
    assert before.shape == (1, 5, 96, 128)
    # Bilinear at first: away from the border the enlarged scores are those of plain interpolation.
    plain = torch.nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear")
    assert torch.allclose(
        made.upsample_coarse(coarse)[..., 2:-2, 2:-2], plain[..., 2:-2, 2:-2], atol=1e-5
    )


def test_fully_connected_layers_of_the_paper(make_backbone: Callable, mask_spec: DataSpec):
    made = fcn8s(make_backbone("vgg11_bn"), mask_spec, fc_channels=16, dropout=0.5)
    shapes = {
        key: tuple(value.shape)
        for key, value in made.state_dict().items()
        if key.startswith("fully")
    }
    assert shapes["fully_connected.0.weight"] == (16, 512, 7, 7)
    assert shapes["fully_connected.3.weight"] == (16, 16, 1, 1)
    assert made(torch.rand(2, 3, 64, 64)).shape == (2, 5, 64, 64)


def test_all_three_feature_maps_are_trained(make_backbone: Callable, mask_spec: DataSpec):
    made = fcn8s(make_backbone("resnet18"), mask_spec, fc_channels=None, dropout=0.0)
    made(torch.rand(2, 3, 64, 64)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    for layer in (made.score_fine, made.score_middle, made.score_coarse):
        assert layer.weight.grad.abs().sum() > 0
