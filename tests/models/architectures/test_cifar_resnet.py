"""Small residual networks: numbers of layers and parameters."""

import pytest
import torch
from torch import nn

from vision_lab.models.architectures.cifar_resnet import CifarResNet, ZeroPadShortcut


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_layers_and_parameters_are_those_of_the_paper(depth: int, millions: float):
    network = CifarResNet(depth=depth)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.03)


def test_maps_halve_and_widen():
    network = CifarResNet(depth=20, num_classes=7).eval()
    x = network.relu(network.bn1(network.conv1(torch.randn(2, 3, 32, 32))))
    shapes = []
    for layer in (network.layer1, network.layer2, network.layer3):
        x = layer(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 7)


def test_the_shortcut_subsamples_and_pads_with_zeros():
    x = torch.randn(1, 2, 5, 5)
    y = ZeroPadShortcut(2)(x)
    assert y.shape == (1, 4, 3, 3)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert not y[:, 0].any()
    assert not y[:, 3].any()


def test_unsupported_depths_are_refused():
    with pytest.raises(ValueError, match="depth=21: type 6n"):
        CifarResNet(depth=21)
