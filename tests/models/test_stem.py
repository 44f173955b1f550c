"""Fitting the first layers to other pictures."""

import pytest
import torch
import torchvision.models as published
from torch import nn

from vision_lab.models.stem import (
    adapt_input_kernel,
    first_convolution,
    remove_stem_downsampling,
    set_in_channels,
)

SMALL = {
    "alexnet": {"features.0": 1},
    "resnet18": {"conv1": 1, "maxpool": None},
    "vgg11": {"features.2": None, "features.5": None},
    "densenet121": {"features.conv0": 1, "features.pool0": None},
    "inception_v3": {"Conv2d_1a_3x3.conv": 1, "maxpool1": None},
    "googlenet": {"conv1.conv": 1, "maxpool1": None},
    "squeezenet1_0": {"features.0": 1, "features.2": None},
    "mobilenet_v2": {"features.0.0": 1},
    "efficientnet_b0": {"features.0.0": 1},
    "convnext_tiny": {"features.0.0": 1},
}
"""What the small stem does: a convolution's new stride, or None where a pooling goes."""


@pytest.mark.parametrize("name", SMALL)
def test_the_first_fourfold_downsampling_goes(name: str):
    extra = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    with torch.device("meta"):
        network = getattr(published, name)(weights=None, **extra)
    keys = list(network.state_dict())
    remove_stem_downsampling(network)
    assert list(network.state_dict()) == keys
    for layer, stride in SMALL[name].items():
        module = network.get_submodule(layer)
        if stride is None:
            assert isinstance(module, nn.Identity)
        else:
            assert module.stride == (stride, stride)
            assert module.kernel_size == (3, 3)
    assert network.eval()(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 1000)


def test_only_the_shrunk_convolution_changes_shape():
    with torch.device("meta"):
        network, other = published.resnet18(), published.resnet18()
    remove_stem_downsampling(network)
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert [k for k, v in other.state_dict().items() if v.shape != shapes[k]] == ["conv1.weight"]


def test_new_weights_have_the_spread_of_the_paper():
    network = published.resnet18()
    old = network.conv1.weight.std().item()
    set_in_channels(network, 1)
    name, first = first_convolution(network)
    assert name == "conv1"
    assert first.weight.shape == (64, 1, 7, 7)
    assert first.weight.std().item() == pytest.approx(old * 3**0.5, rel=0.1)


def test_grey_kernels_answer_as_the_colour_kernels_do():
    kernel, grey = torch.randn(8, 3, 3, 3), torch.rand(2, 1, 9, 9)
    colour = nn.functional.conv2d(grey.expand(-1, 3, -1, -1), kernel)
    assert torch.allclose(
        nn.functional.conv2d(grey, adapt_input_kernel(kernel, 1)), colour, atol=1e-5
    )


def test_more_channels_repeat_the_kernels_at_the_same_strength():
    kernel = torch.randn(8, 3, 3, 3)
    six = adapt_input_kernel(kernel, 6)
    assert torch.equal(six[:, :3], kernel / 2)
    assert torch.equal(six[:, 3:], kernel / 2)
    assert adapt_input_kernel(kernel, 3) is kernel
    assert adapt_input_kernel(kernel, 4).shape == (8, 4, 3, 3)
