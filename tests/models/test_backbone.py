"""Backbones: published outputs, features by stride, frozen layers, and errors."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torchvision.models as published
from torch import nn

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.spec import DataSpec
from vision_lab.models.backbone import ClassifierBackbone, build_backbone

FAMILIES = {
    "alexnet": 64,
    "vgg11_bn": 32,
    "resnet18": 64,
    "densenet121": 64,
    "googlenet": 64,
    "inception_v3": 75,
    "squeezenet1_1": 64,
    "mobilenet_v3_small": 64,
    "efficientnet_b0": 64,
    "convnext_tiny": 64,
    "resnext50_32x4d": 64,
    "wide_resnet50_2": 64,
}
"""One small member of each family, and the size in pixels to run it at."""

EVERYDAY = ("alexnet", "resnet18", "densenet121", "googlenet", "mobilenet_v3_small")


def made(spec: DataSpec, classifier=published.resnet18, **changes) -> ClassifierBackbone:
    return build_backbone(
        spec,
        network=classifier,
        **({"stem": "imagenet", "weights": None, "freeze": None} | changes),
    )


@pytest.mark.parametrize(
    "name",
    [n if n in EVERYDAY else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES],
)
def test_outputs_are_bit_exactly_torchvisions(name: str, spec: DataSpec):
    size = FAMILIES[name]
    extra = (
        {"init_weights": False, "aux_logits": name == "googlenet"}
        if name in ("inception_v3", "googlenet")
        else {}
    )
    constructor = partial(getattr(published, name), **extra)
    theirs = constructor(num_classes=4).eval()
    ours = made(replace(spec, image_size=(size, size)), constructor).network
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, size, size)
    with torch.inference_mode():
        assert torch.equal(ours.eval()(images), theirs(images))


def test_features_are_feature_maps_of_the_classifier(spec: DataSpec):
    it = made(replace(spec, image_size=(64, 64)))
    names = [stage.name for stage in it.stages[1:]]
    features = it.features(names).eval()
    images = torch.rand(2, 3, 64, 64)
    maps = features(images)
    assert list(maps) == names
    for stage in it.stages[1:]:
        assert maps[stage.name].shape == (2, stage.channels, 64 // stage.stride, 64 // stage.stride)
    classifier = it.network.eval()
    pooled = classifier.fc(classifier.avgpool(maps["layer4.1"]).flatten(1))
    assert torch.equal(pooled, classifier(images))
    assert set(features.state_dict()) == {
        key for key in classifier.state_dict() if not key.startswith("fc.")
    }


def test_the_last_feature_map_of_a_densenet_follows_its_relu(spec: DataSpec):
    it = made(replace(spec, image_size=(64, 64)), published.densenet121)
    last = it.stages[-1].name
    assert last == "features.norm5"
    assert it.features([last]).eval()(torch.rand(1, 3, 64, 64))[last].min() == 0


@pytest.mark.parametrize(("size", "stride"), [(32, 1), (63, 1), (64, 2), (224, 2)])
def test_auto_stem(spec: DataSpec, size: int, stride: int):
    it = made(replace(spec, image_size=(size, size)), stem="auto")
    assert it.network.conv1.stride == (stride, stride)


def test_images_that_are_too_small_get_the_minimum_size(spec: DataSpec):
    with pytest.raises(ArgumentError) as caught:
        made(spec, published.alexnet)
    message = "image_size=[32,32]: type [63,63]: alexnet does not support smaller images"
    assert str(caught.value) == message
    made(replace(spec, image_size=(63, 63)), published.alexnet)


@pytest.mark.slow
def test_the_suggested_size_fits_the_stem_it_selects(spec: DataSpec):
    """A small stem requires less, but ``auto`` does not select it at that size."""
    inception = partial(published.inception_v3, init_weights=False)
    with torch.device("meta"):
        with pytest.raises(ArgumentError) as caught:
            made(spec, inception, stem="auto")
        assert str(caught.value) == (
            "image_size=[32,32]: type [299,299], or [75,75] model.stem=small: inception_v3 does not "
            "support smaller images"
        )
        made(replace(spec, image_size=(75, 75)), inception, stem="small")
        made(replace(spec, image_size=(299, 299)), inception, stem="auto")


def test_stem_choices(spec: DataSpec):
    with pytest.raises(ArgumentError, match=r"^stem=tiny: type auto, imagenet or small$"):
        made(spec, stem="tiny")


def test_freezing_the_backbone_leaves_the_classification_layer(spec: DataSpec):
    it = made(spec, freeze="backbone")
    trained = [name for name, parameter in it.network.named_parameters() if parameter.requires_grad]
    assert trained == ["fc.weight", "fc.bias"]
    norms = [module for module in it.network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 20
    assert not any(norm.training for norm in norms)
    assert it.network.fc.training


@pytest.mark.parametrize("until", ["layer2", "layer2.1"])
def test_frozen_up_to_a_stage(spec: DataSpec, until: str):
    it = made(spec, freeze=until)
    frozen = {
        name.split(".")[0] for name, p in it.network.named_parameters() if not p.requires_grad
    }
    assert frozen == {"conv1", "bn1", "layer1", "layer2"}
    assert not it.network.bn1.training
    assert it.network.layer3[0].bn1.training


def test_freezing_a_stage_without_parameters_freezes_earlier_ones(spec: DataSpec):
    it = made(spec, freeze="relu")
    assert {n for n, p in it.network.named_parameters() if not p.requires_grad} == {
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
    }


def test_an_unknown_stage_lists_all_stages(spec: DataSpec):
    expected = r"^freeze=layer9: type backbone, or one of the stages relu, layer1\.1, layer2\.1, layer3\.1, layer4\.1$"
    with pytest.raises(ArgumentError, match=expected):
        made(spec, freeze="layer9")


def test_a_small_stem_that_is_not_possible(spec: DataSpec):
    from vision_lab.models.architectures.cifar_resnet import CifarResNet

    with pytest.raises(ArgumentError, match="stem=small: type imagenet: the first downsampling of"):
        made(spec, partial(CifarResNet, depth=20), stem="small")
