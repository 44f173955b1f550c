"""DeepLabV3: bit-exactly torchvision's; a batch of one image."""

from collections.abc import Callable

import pytest
import torch
import torchvision

from tests.heads.compare import assert_same_network
from vision_lab.core.spec import DataSpec
from vision_lab.heads.deeplabv3 import SinglePixelBatchNorm, deeplabv3


@pytest.mark.parametrize("name", ["resnet50", pytest.param("resnet101", marks=pytest.mark.slow)])
def test_the_network_equals_torchvisions(make_backbone: Callable, mask_spec: DataSpec, name: str):
    published = getattr(torchvision.models.segmentation, f"deeplabv3_{name}")(
        weights=None, weights_backbone=None, num_classes=5, aux_loss=True
    )
    made = deeplabv3(
        make_backbone(name), mask_spec, output_stride=8, atrous_rates=[12, 24, 36], aux_loss=True
    )
    assert_same_network(made, published)


def test_a_batch_of_one_image_trains(make_backbone: Callable, mask_spec: DataSpec):
    made = deeplabv3(
        make_backbone("resnet18"),
        mask_spec,
        output_stride=16,
        atrous_rates=[6, 12, 18],
        aux_loss=False,
    )
    made(torch.rand(1, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_batch_norm_of_one_pixel_equals_torchs():
    plain, safe = torch.nn.BatchNorm2d(3), SinglePixelBatchNorm(3)
    x = torch.rand(4, 3, 1, 1)
    assert torch.equal(safe(x), plain(x))
    assert torch.equal(safe.running_mean, plain.running_mean)
    assert torch.equal(safe(x[:1]), plain.eval()(x[:1]))
    assert torch.equal(safe.running_mean, plain.running_mean)
