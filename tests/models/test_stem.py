"""First layers adapted to other images."""

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
def test_the_small_stem_removes_the_first_downsampling(name: str):
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


def test_the_small_stem_changes_only_the_first_convolution():
    with torch.device("meta"):
        network, other = published.resnet18(), published.resnet18()
    remove_stem_downsampling(network)
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert [k for k, v in other.state_dict().items() if v.shape != shapes[k]] == ["conv1.weight"]


def test_new_weights_have_the_spread_of_the_paper():
    network = published.resnet18()
    old = network.conv1.weight.std().item()
    set_in_channels(network, 1)
    found = first_convolution(network)
    assert found is not None
    name, first = found
    assert name == "conv1"
    assert first.weight.shape == (64, 1, 7, 7)
    assert first.weight.std().item() == pytest.approx(old * 3**0.5, rel=0.1)


def test_gray_kernels_respond_like_the_color_kernels():
    kernel, gray = torch.randn(8, 3, 3, 3), torch.rand(2, 1, 9, 9)
    color = nn.functional.conv2d(gray.expand(-1, 3, -1, -1), kernel)
    assert torch.allclose(
        nn.functional.conv2d(gray, adapt_input_kernel(kernel, 1)), color, atol=1e-5
    )


def test_more_channels_repeat_and_rescale_the_kernels():
    kernel = torch.randn(8, 3, 3, 3)
    six = adapt_input_kernel(kernel, 6)
    assert torch.equal(six[:, :3], kernel / 2)
    assert torch.equal(six[:, 3:], kernel / 2)
    assert adapt_input_kernel(kernel, 3) is kernel
    assert adapt_input_kernel(kernel, 4).shape == (8, 4, 3, 3)
