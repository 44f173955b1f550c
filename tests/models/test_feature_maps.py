"""Feature maps of a classifier as a module: keys, copies, training flag."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from vision_lab.models.backbone import ClassifierBackbone
from vision_lab.models.feature_maps import TrainEvalGraphs


class Dropping(nn.Module):
    """Functional dropout, which a trace fixes for one training flag."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.second = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.second(F.dropout(self.first(x), 0.5, self.training))


def test_keys_and_values_equal_the_classifiers():
    classifier = torchvision.models.resnet18().eval()
    maps = TrainEvalGraphs(classifier).feature_maps(["layer1.1", "layer4.1"])
    assert set(maps.state_dict()) == {
        key for key in classifier.state_dict() if not key.startswith("fc.")
    }
    images = torch.rand(1, 3, 64, 96)
    found = maps(images)
    assert {name: value.shape for name, value in found.items()} == {
        "layer1.1": (1, 64, 16, 24),
        "layer4.1": (1, 512, 2, 3),
    }
    assert torch.equal(classifier.fc(found["layer4.1"].mean(dim=(2, 3))), classifier(images))


def test_the_graph_follows_the_training_flag_of_each_call():
    maps = TrainEvalGraphs(Dropping()).feature_maps(["second"])
    images = torch.rand(1, 3, 8, 8)
    assert maps.training
    assert not torch.equal(maps(images)["second"], maps(images)["second"])
    maps.eval()
    assert torch.equal(maps(images)["second"], maps(images)["second"])
    for module in maps.modules():  # as Lightning does after validation
        module.training = True
    assert not torch.equal(maps(images)["second"], maps(images)["second"])


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v3_small", "convnext_tiny"])
def test_a_copy_is_independent(name: str):
    made = ClassifierBackbone(getattr(torchvision.models, name)(), channels=3, loaded=None)
    maps = made.features([made.stages[-1].name]).eval()
    other = copy.deepcopy(maps)
    images = torch.rand(1, 3, 64, 64)
    (one,), (two,) = maps(images).values(), other(images).values()
    assert torch.equal(one, two)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(*maps(images).values(), one)
    assert not torch.equal(*other.train()(images.expand(2, -1, -1, -1)).values(), one)


def test_replaced_layers_are_used():
    """Like synchronized batch norm, in training and in evaluation."""
    maps = TrainEvalGraphs(torchvision.models.resnet18()).feature_maps(["layer1.1"])
    images = torch.rand(2, 3, 32, 32)
    maps.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
    nn.init.zeros_(maps.conv1.weight)
    for training in (True, False):
        (found,) = maps.train(training)(images).values()
        assert (found.std(dim=(2, 3)) < 1).all()
        (other,) = maps(images.flip(-1)).values()
        assert torch.equal(found, other)  # of nothing but zeros, whatever the image
    assert all(buffer.is_meta for buffer in maps.to("meta").buffers())
    with torch.no_grad():
        assert next(iter(maps(images.to("meta")).values())).is_meta


def test_frozen_layers_stay_in_evaluation_mode():
    classifier = torchvision.models.resnet18()
    classifier.bn1.eval()
    maps = TrainEvalGraphs(classifier).feature_maps(["layer4.1"])
    assert not maps.get_submodule("bn1").training
    assert maps.get_submodule("layer1.0.bn1").training
