"""Feature extractors: their features, and errors if one is not available."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.models
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.spec import DataSpec
from vision_lab.data.bundled.fashion_mini import FashionMini
from vision_lab.metrics.generative import fid
from vision_lab.models import feature_extractors
from vision_lab.models.feature_extractors import (
    FASHION_WEIGHTS,
    classifier_features,
    fashion_features,
    inception,
)


def test_the_bundled_network_separates_classes():
    """By the nearest class mean of features of test images; and the file is small."""
    look, train, test = fashion_features(), FashionMini(split="train"), FashionMini(split="test")
    points, others = look(train.tensors[0][::12]), look(test.tensors[0][::2])
    means = torch.stack([points[train.targets[::12] == label].mean(dim=0) for label in range(10)])
    right = torch.cdist(others, means).argmin(dim=1) == test.targets[::2]
    assert points.shape == (500, 64)
    assert right.float().mean() > 0.85
    assert FASHION_WEIGHTS.stat().st_size < 400_000
    noise = torch.randint(
        0, 256, (500, 1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    assert fid(others, look(noise)) > 50 * fid(others, points)


def test_images_of_any_kind_are_converted():
    look = fashion_features()
    gray = torch.rand(3, 1, 32, 32)
    assert torch.allclose(
        look((gray * 255).round().to(torch.uint8)), look((gray * 255).round() / 255), atol=1e-4
    )
    assert look(torch.rand(2, 5, 40, 50)).shape == (2, 5 * 64)
    expected = look(gray)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(look(gray), expected)


def test_each_channel_is_processed_separately():
    """Features depend on colors and their order."""
    look, color = fashion_features(), torch.rand(3, 3, 32, 32)
    together = look(color)
    for place in range(3):
        alone = look(color[:, place : place + 1])
        assert torch.allclose(
            together[:, 64 * place : 64 * place + 64], alone, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    "name", ["resnet18", "squeezenet1_0", "vgg11", "densenet121", "mobilenet_v2"]
)
def test_features_of_a_classifier_are_inputs_of_its_last_layer(spec: DataSpec, name: str):
    """The last layer applied to the features gives the logits."""
    classifier = torchvision.models.get_model(name, num_classes=4).eval()
    look = classifier_features(classifier, replace(spec, image_size=(64, 64)), "run:x")
    images = torch.rand(2, 3, 64, 64)
    points = look(images)
    with torch.no_grad():
        logits = classifier((images - 0.5) / 0.25)
    last = [m for m in classifier.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)][-1]
    weight = last.weight.flatten(1)
    if name == "squeezenet1_0":  # a convolution and a ReLU before the mean over pixels
        assert points.shape == (2, 512)
        return
    assert torch.allclose(points @ weight.T + last.bias, logits, atol=1e-4)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file like torch-fidelity's with random weights; nothing is downloaded."""
    made = "vision_lab"
    monkeypatch.setattr(
        "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url",
        lambda *_, **__: _state(tmp_path / made),
    )
    _state(tmp_path / made)
    return tmp_path / f"{made}.pth"


def _state(path: Path) -> dict[str, Tensor]:
    """Return a random state dict of such a network."""
    file = path.with_suffix(".pth")
    if not file.exists():
        torch.manual_seed(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
            patch.setattr(
                "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url",
                lambda *_, **__: {},
            )
            torch.save(FeatureExtractorInceptionV3("x", ["2048"]).state_dict(), file)
    return torch.load(file, weights_only=True)


def test_inception_from_a_file_and_downloaded(weights: Path):
    from_file, fetched = inception(str(weights)), inception(None)
    images = torch.rand(2, 1, 32, 32)
    points = from_file(images)
    assert points.shape == (2, 2048)
    assert torch.equal(points, fetched(images))
    direct = FeatureExtractorInceptionV3("x", ["2048"], str(weights))
    (expected,) = direct((images.expand(-1, 3, -1, -1) * 255).round().to(torch.uint8))
    assert torch.equal(points, expected)
    assert from_file.name == "inception"


def test_inception_without_its_extra_or_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(
        "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", offline
    )
    with pytest.raises(ArgumentError) as caught:
        inception(None)
    text = str(caught.value)
    name = "weights-inception-2015-12-05-6726825d.pth"
    assert f"{name} cannot be downloaded (no network)" in text
    assert f"weights=null: type the path of {name}, downloaded elsewhere" in text
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text(
        "root:x:0:0:no weights"
    )  # which torch reads as far as an index
    torch.save({"x": partial(print, "run")}, tmp_path / "code.pth")
    for name in ("other", "text", "code"):
        with pytest.raises(
            ArgumentError,
            match=rf"weights=.*{name}\.pth: type the path of torch-fidelity's weights, which these",
        ):
            inception(str(tmp_path / f"{name}.pth"))
    with pytest.raises(ArgumentError, match=r"weights=none\.pth: type the path of a file that exi"):
        inception("none.pth")
    monkeypatch.setitem(
        __import__("sys").modules, "torch_fidelity.feature_extractor_inceptionv3", None
    )
    with pytest.raises(
        ConfigurationError, match=r"require torch-fidelity: type pip install 'vision_lab\[fid\]'"
    ):
        inception(None)


def test_the_bundled_weights_are_those_of_the_documented_command():
    """The file contains only the finite tensors of the network."""
    state = torch.load(feature_extractors.FASHION_WEIGHTS, weights_only=True)
    assert sum(np.prod(value.shape) for value in state.values()) < 80_000
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
