"""Class activation maps of networks whose evidence is known."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from vision_lab.models.class_activation import ClassActivationMaps


class Corners(nn.Module):
    """The logits are the mean brightness of the upper left and of the lower right quarter."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, kernel_size=4, stride=4)
        self.classifier = nn.Linear(2, 2)
        with torch.no_grad():
            self.features.weight.fill_(1 / 16)
            self.features.bias.zero_()
            self.classifier.weight.copy_(torch.eye(2))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(images)
        half = maps.shape[-1] // 2
        mask = torch.zeros_like(maps)
        mask[:, 0, :half, :half] = 1
        mask[:, 1, half:, half:] = 1
        return self.classifier((maps * mask).mean(dim=(2, 3)))


def test_maps_show_what_speaks_for_the_class():
    network = Corners()
    explain = ClassActivationMaps(network, network, channels=1, image_size=(32, 32))
    assert explain.layer == "features"
    maps = explain(torch.ones(2, 1, 32, 32), torch.tensor([0, 1]))
    assert maps.shape == (2, 32, 32)
    assert maps[0, :14, :14].min() == 1.0
    assert maps[0, 18:].max() == 0.0
    assert maps[1, 18:, 18:].min() == 1.0
    assert maps[1, :14].max() == 0.0


@pytest.mark.parametrize(
    "make",
    [
        torchvision.models.squeezenet1_1,
        torchvision.models.densenet121,  # its last activation is applied in place, by a function
        torchvision.models.vgg11_bn,
        torchvision.models.mobilenet_v2,
        torchvision.models.swin_t,
        torchvision.models.inception_v3,  # in training it returns auxiliary logits
    ],
)
def test_any_classifier_with_feature_maps_has_them(make):
    torch.manual_seed(0)
    network = make(num_classes=3, weights=None)
    network.eval().features[0].requires_grad_(False) if hasattr(network, "features") else None
    network.train()
    explain = ClassActivationMaps(network, network, channels=3, image_size=(96, 96))
    images = torch.rand(2, 3, 96, 96)
    with torch.inference_mode():  # as Lightning evaluates
        maps = explain(images, torch.tensor([0, 2]))
    assert maps.shape == (2, 96, 96)
    assert maps.min() >= 0
    assert maps.amax(dim=(1, 2)).tolist() == pytest.approx([1, 1])
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())


def test_networks_without_feature_maps_have_none():
    network = torchvision.models.VisionTransformer(
        image_size=256, patch_size=32, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8
    )
    assert ClassActivationMaps(network, network, channels=3, image_size=(96, 96)).layer is None


@pytest.mark.parametrize(("side", "layer"), [(224, "layer4.1"), (112, "layer3.1"), (8, "relu")])
def test_small_images_are_explained_by_a_finer_feature_map(side: int, layer: str):
    network = torchvision.models.resnet18(num_classes=3, weights=None)
    explain = ClassActivationMaps(network, network, channels=3, image_size=(side, side))
    assert explain.layer == layer
