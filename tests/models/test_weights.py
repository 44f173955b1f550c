"""Pretrained weights: formats of files, allowed differences, and errors."""

import os
import pickle
from functools import partial
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision.models as published
from torch import nn

from vision_lab.core.errors import ConfigurationError
from vision_lab.models.stem import remove_stem_downsampling, set_in_channels
from vision_lab.models.weights import load

CLASSES = {"classifier.1.weight", "classifier.1.bias"}


@pytest.fixture
def learned() -> dict[str, torch.Tensor]:
    return published.squeezenet1_1(num_classes=7).state_dict()


def into(file: Path, classes: int = 7, network: nn.Module | None = None):
    network = network or published.squeezenet1_1(num_classes=classes)
    return network, load(network, str(file), constructor="squeezenet1_1", class_layers=CLASSES)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "backbone.", "network."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
def test_wrapped_and_prefixed(
    tmp_path: Path, learned: dict[str, torch.Tensor], prefix: str, wrapper: str | None
):
    content = {prefix + key: value for key, value in learned.items()}
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path / "w.pth")
    network, loaded = into(tmp_path / "w.pth")
    assert all(torch.equal(value, learned[key]) for key, value in network.state_dict().items())
    assert loaded.summary == "w.pth: 52 of 52 tensors loaded"
    assert loaded.missing_keys == ()


def test_other_numbers_of_classes_reinitialize_the_last_layer(
    tmp_path: Path, learned: dict[str, torch.Tensor]
):
    torch.save(learned, tmp_path / "w.pth")
    network, loaded = into(tmp_path / "w.pth", classes=3)
    assert loaded.summary == (
        "w.pth: 50 of 52 tensors loaded; randomly initialized: classifier.1.weight, classifier.1.bias"
    )
    assert set(loaded.missing_keys) == CLASSES
    assert torch.equal(network.features[0].weight, learned["features.0.weight"])


def test_pretrained_weights_of_the_backbone_only(tmp_path: Path, learned: dict[str, torch.Tensor]):
    torch.save(
        {key: value for key, value in learned.items() if key not in CLASSES}, tmp_path / "w.pth"
    )
    assert set(into(tmp_path / "w.pth")[1].missing_keys) == CLASSES


def test_kernels_are_summed_for_gray_images(tmp_path: Path, learned: dict[str, torch.Tensor]):
    torch.save(learned, tmp_path / "w.pth")
    gray = published.squeezenet1_1(num_classes=7)
    set_in_channels(gray, 1)
    network, _ = into(tmp_path / "w.pth", network=gray)
    assert torch.allclose(
        network.features[0].weight, learned["features.0.weight"].sum(dim=1, keepdim=True)
    )


def test_a_small_stem_does_not_fit_pretrained_weights(tmp_path: Path):
    torch.save(published.resnet18(num_classes=7).state_dict(), tmp_path / "w.pth")
    network = published.resnet18(num_classes=7)
    remove_stem_downsampling(network)
    with pytest.raises(ConfigurationError) as caught:
        load(
            network,
            str(tmp_path / "w.pth"),
            constructor="resnet18",
            class_layers={"fc.weight", "fc.bias"},
        )
    assert "other shapes: conv1.weight 64x3x7x7 instead of 64x3x3x3" in str(caught.value)
    assert str(caught.value).endswith("type model.stem=imagenet.")


def test_weights_of_another_network_are_refused_with_the_keys(tmp_path: Path):
    torch.save(published.alexnet(num_classes=7).state_dict(), tmp_path / "w.pth")
    before = published.squeezenet1_1(num_classes=7)
    state = {key: value.clone() for key, value in before.state_dict().items()}
    with pytest.raises(ConfigurationError) as caught:
        into(tmp_path / "w.pth", network=before)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("does not fit the network (only the classification layer may differ):")
    assert "  missing from the file: features.3.squeeze.weight" in str(caught.value)
    assert "  missing from the network: " in str(caught.value)
    assert all(torch.equal(value, state[key]) for key, value in before.state_dict().items())


def test_weights_of_disabled_auxiliary_classifiers_are_ignored(tmp_path: Path):
    build = partial(published.googlenet, num_classes=7, init_weights=False)
    torch.save(build(aux_logits=True).state_dict(), tmp_path / "w.pth")
    loaded = load(
        build(aux_logits=False),
        str(tmp_path / "w.pth"),
        constructor="googlenet",
        class_layers={"fc.weight", "fc.bias"},
    )
    assert loaded.summary.endswith("; ignored: aux1, aux2")


def test_old_densenet_names(tmp_path: Path):
    network = published.densenet121(num_classes=7)
    old = {}
    for key, value in network.state_dict().items():
        parts = key.split(".")
        if "denselayer" in key:
            parts[3] = f"{parts[3][:-1]}.{parts[3][-1]}"
        old[".".join(parts)] = value
    assert any("norm.1" in key for key in old)
    torch.save(old, tmp_path / "w.pth")
    fresh = published.densenet121(num_classes=7)
    loaded = load(fresh, str(tmp_path / "w.pth"), constructor="densenet121", class_layers=set())
    assert loaded.missing_keys == ()
    assert torch.equal(
        fresh.features.denseblock1.denselayer1.norm1.weight,
        network.features.denseblock1.denselayer1.norm1.weight,
    )


class _Planted:
    def __reduce__(self):
        return os.mkdir, ("planted",)


def test_code_in_a_file_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").write_bytes(pickle.dumps(_Planted()))
    with pytest.raises(ConfigurationError, match="without running code in it"):
        into(tmp_path / "w.pth")
    assert not (tmp_path / "planted").exists()


def test_unknown_weights_are_refused(tmp_path: Path):
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    for name, text in {
        "missing.pth": "there is no such file",
        "text.pth": "not a file of tensors",
        "empty.pth": "it contains no state dict",
    }.items():
        with pytest.raises(ConfigurationError, match=text):
            into(tmp_path / name)
    with pytest.raises(
        ConfigurationError,
        match=r"there is no such file, and torchvision's weights for .* imagenet, IMAGENET1K_V1$",
    ):
        load(
            published.squeezenet1_1(),
            "imagenett",
            constructor="squeezenet1_1",
            class_layers=CLASSES,
        )
    with pytest.raises(ConfigurationError, match="torchvision has no weights for MyNet"):
        load(published.squeezenet1_1(), "imagenet", constructor="MyNet", class_layers=CLASSES)


def test_offline_the_error_names_url_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_args, **_options):
        raise URLError("no network in tests")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.raises(ConfigurationError) as caught:
        load(
            published.squeezenet1_1(), "imagenet", constructor="squeezenet1_1", class_layers=CLASSES
        )
    text = str(caught.value)
    assert "https://download.pytorch.org/models/squeezenet1_1-" in text
    assert "no network in tests" in text
    assert "type model.weights=<folder>/squeezenet1_1-" in text
    assert str(tmp_path / "hub" / "checkpoints") in text


def test_cached_weights_set_their_normalization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network = published.squeezenet1_1()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / "squeezenet1_1-b8a52dc0.pth")
    other = published.squeezenet1_1()
    loaded = load(other, "imagenet", constructor="squeezenet1_1", class_layers=CLASSES)
    assert torch.equal(other.features[0].weight, network.features[0].weight)
    assert loaded.mean == (0.485, 0.456, 0.406)
    assert loaded.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_normalization_for_tensorflow_weights_equals_transform_input(tmp_path: Path, name: str):
    build = partial(getattr(published, name), num_classes=7, init_weights=False, aux_logits=False)
    theirs = build(transform_input=True)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    loaded = load(build(), str(tmp_path / "w.pth"), constructor=name, class_layers=set())
    assert loaded.mean is not None
    assert loaded.std is not None
    images = torch.rand(2, 3, 8, 8)
    imagenet_mean, imagenet_std = (
        torch.tensor([0.485, 0.456, 0.406]),
        torch.tensor([0.229, 0.224, 0.225]),
    )
    expected = theirs._transform_input(
        (images - imagenet_mean[:, None, None]) / imagenet_std[:, None, None]
    )
    assert torch.allclose((images - loaded.mean[0]) / loaded.std[0], expected, atol=1e-5)
