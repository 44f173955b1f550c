"""DCGAN: sizes, initial weights, published order of layers, classes, norms."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.spec import DataSpec
from vision_lab.models.architectures.dcgan import DCGAN, dcgan

SETTINGS: dict[str, Any] = {
    "latent_dim": 10,
    "generator_channels": 4,
    "discriminator_channels": 4,
    "discriminator_norm": "batch",
    "spectral_norm": False,
    "conditioning": None,
    "weights": None,
}


def pair(spec: DataSpec, *, size: int = 32, channels: int = 3, **changes: Any) -> DCGAN:
    return dcgan(replace(spec, image_size=(size, size), channels=channels), **SETTINGS | changes)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_each_size_and_number_of_channels(spec: DataSpec, size: int, channels: int):
    made = pair(spec, size=size, channels=channels)
    images = made(torch.randn(2, 10))
    assert images.shape == (2, channels, size, size)
    assert images.abs().max() <= 1
    assert made.discriminator(images).shape == (2,)


def test_as_published_at_64_pixels(spec: DataSpec):
    """Channels, kernels and strides of figure 1, and layers without batch norm."""
    made = pair(spec, size=64, latent_dim=100, generator_channels=64, discriminator_channels=64)
    up = [layer for layer in made.generator.layers if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in up] == [512, 256, 128, 64, 3]
    assert {layer.kernel_size for layer in up} == {(4, 4)}
    assert [layer.stride for layer in up] == [(1, 1)] + [(2, 2)] * 4
    assert [type(layer).__name__ for layer in made.generator.layers[-3:]] == [
        "ReLU",
        "ConvTranspose2d",
        "Tanh",
    ]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in made.generator.modules()) == 4
    down = [layer for layer in made.discriminator.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in down] == [64, 128, 256, 512, 1]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in made.discriminator.modules()) == 3
    assert isinstance(made.discriminator.layers[1], nn.LeakyReLU)
    assert {
        layer.negative_slope
        for layer in made.discriminator.layers
        if isinstance(layer, nn.LeakyReLU)
    } == {0.2}
    for layer in [*up, *down]:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert layer.weight.mean().item() == pytest.approx(0, abs=0.002)
    norms = [layer.weight for layer in made.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert torch.cat(norms).mean().item() == pytest.approx(1, abs=0.005)
    assert torch.cat(norms).std().item() == pytest.approx(0.02, rel=0.1)
    # 3.57 M and 2.77 M, as PyTorch's own tutorial of this network has it
    counts = [
        sum(p.numel() for p in network.parameters())
        for network in (made.generator, made.discriminator)
    ]
    assert counts == pytest.approx([3_576_704, 2_765_568], abs=200)


@pytest.mark.parametrize("conditioning", ["concatenation", "projection"])
def test_classes_reach_both_networks(spec: DataSpec, conditioning: str):
    made = pair(spec, conditioning=conditioning).eval()
    latents, (one, other) = torch.randn(3, 10), torch.tensor([[0] * 3, [2] * 3])
    assert made.conditional
    assert not torch.equal(made(latents, one), made(latents, other))
    images = torch.rand(3, 3, 32, 32)
    assert not torch.equal(made.discriminator(images, one), made.discriminator(images, other))


def test_a_projection_adds_the_product_of_class_and_features(spec: DataSpec):
    discriminator = pair(spec, conditioning="projection").discriminator.eval()
    assert discriminator.projection is not None
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([1, 3])
    features = discriminator.layers(images).sum(dim=(2, 3))
    score = discriminator.score(discriminator.layers(images)).flatten()
    expected = score + (discriminator.projection.weight[labels] * features).sum(dim=1)
    assert torch.allclose(discriminator(images, labels), expected)


def test_spectral_norm_bounds_each_layer(spec: DataSpec):
    made = pair(spec, spectral_norm=True, conditioning="projection")
    for _ in range(30):
        made.discriminator(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))
    weights = [
        m.weight for m in made.discriminator.modules() if isinstance(m, nn.Conv2d | nn.Embedding)
    ]
    assert len(weights) == 5
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.flatten(1), ord=2).item() == pytest.approx(
            1, abs=0.02
        )


@pytest.mark.parametrize(
    ("norm", "kind"), [("batch", nn.BatchNorm2d), ("layer", nn.GroupNorm), ("none", None)]
)
def test_the_discriminator_has_the_selected_norm(spec: DataSpec, norm: str, kind: type | None):
    modules = pair(spec, discriminator_norm=norm).discriminator.modules()
    found = {type(m) for m in modules if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)}
    assert found == ({kind} if kind else set())


def test_incompatible_options_are_refused_with_advice(spec: DataSpec):
    for size, typed in (((28, 28), "[32,32]"), ((64, 48), "[64,64]"), ((200, 200), "[128,128]")):
        with pytest.raises(
            ArgumentError, match=r"dcgan generates square images of 16, 32, 64 or 128"
        ) as caught:
            dcgan(replace(spec, image_size=size), **SETTINGS)
        shown = f"[{size[0]},{size[1]}]"
        assert str(caught.value).startswith(f"image_size={shown}: type {typed}: dcgan")
    with pytest.raises(
        ArgumentError, match=r"conditioning=projection: type null: the data has no labels"
    ):
        dcgan(replace(spec, target_type="masks"), **SETTINGS | {"conditioning": "projection"})


def test_weights_of_a_gan(spec: DataSpec, tmp_path):
    before = pair(spec)
    torch.save(before.state_dict(), tmp_path / "model.pth")
    made = pair(spec, weights=str(tmp_path / "model.pth"))
    assert made.loaded is not None
    assert made.loaded.missing_keys == ()
    assert all(
        torch.equal(value, before.state_dict()[key]) for key, value in made.state_dict().items()
    )
    with pytest.raises(ConfigurationError, match=r"model\.weights=.* does not fit the network"):
        pair(spec, generator_channels=8, weights=str(tmp_path / "model.pth"))
