"""What is found out about a network without computing it."""

import pytest
import torch
import torchvision.models as published

from vision_lab.core.protocols import Stage
from vision_lab.models import introspection


def test_stages_of_a_resnet():
    with torch.device("meta"):
        network = published.resnet18()
    assert introspection.find_stages(network, channels=3) == (
        Stage("relu", 64, 2),
        Stage("layer1.1", 64, 4),
        Stage("layer2.1", 128, 8),
        Stage("layer3.1", 256, 16),
        Stage("layer4.1", 512, 32),
    )


@pytest.mark.parametrize(
    ("name", "smallest"), [("alexnet", 63), ("vgg11", 32), ("squeezenet1_0", 21)]
)
def test_the_minimum_image_size_is_torchvisions(name: str, smallest: int):
    with torch.device("meta"):
        network = getattr(published, name)()
    assert introspection.min_image_size(network, channels=3, start=1) == smallest
    assert introspection.forward_error(network, channels=3, size=(smallest, smallest)) is None
    assert "too small" in str(
        introspection.forward_error(network, channels=3, size=(smallest - 1, smallest - 1))
    )


def test_a_copy_without_weights_shares_nothing():
    network = published.squeezenet1_1()
    copy = introspection.meta_copy(network)
    assert {parameter.device.type for parameter in copy.parameters()} == {"meta"}
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}
    assert network.training
    assert not copy.training
