"""Autoencoders: images of any size, any encoder, codes of a variational one."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torchvision.models import alexnet, resnet18

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.spec import DataSpec
from vision_lab.models.architectures.autoencoder import Autoencoder, autoencoder
from vision_lab.models.architectures.conv_encoder import ConvEncoder
from vision_lab.models.backbone import build_backbone


def build(spec: DataSpec, **changes) -> Autoencoder:
    encoder = partial(ConvEncoder, image_size=spec.image_size, base_channels=4)
    arguments = {"encoder": encoder, "latent_dim": 6, "base_channels": 4}
    return autoencoder(spec, **(arguments | changes))


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [(5, 7), (28, 28), (33, 64), (96, 96), (130, 50)])
def test_images_of_any_size_and_channels(spec: DataSpec, size: tuple[int, int], channels: int):
    network = build(replace(spec, image_size=size, channels=channels))
    outputs = network(torch.rand(2, channels, *size))
    assert outputs.logits.shape == (2, channels, *size)
    assert outputs.mean.shape == (2, 6)
    assert outputs.log_variance is None


def test_any_classifier_is_an_encoder(spec: DataSpec):
    network = build(replace(spec, image_size=(64, 64)), encoder=resnet18, latent_dim=10)
    assert network(torch.rand(2, 3, 64, 64)).mean.shape == (2, 10)


def test_an_encoder_that_does_not_run_at_the_size_is_refused(spec: DataSpec):
    with pytest.raises(ArgumentError, match=r"image_size=\[32,32\]: type another size"):
        build(spec, encoder=alexnet)


def test_codes_are_drawn_in_training_and_means_in_evaluation(spec: DataSpec):
    torch.manual_seed(0)
    network, images = build(spec, variational=True), torch.rand(2, 3, 32, 32)
    outputs = network.eval()(images)
    assert outputs.log_variance is not None
    assert outputs.mean.shape == outputs.log_variance.shape == (2, 6)
    assert torch.equal(network(images).logits, outputs.logits)
    assert torch.equal(network.decoder(outputs.mean), outputs.logits)
    network.train()
    assert not torch.equal(network(images).logits, network(images).logits)


def test_extreme_variances_stay_finite(spec: DataSpec):
    network = build(spec, variational=True)
    with torch.no_grad():
        network.encoder.fc.bias[6:] = 1e6
    outputs = network(torch.rand(2, 3, 32, 32))
    assert outputs.logits.isfinite().all()


def test_an_encoder_starts_a_classifier(spec: DataSpec, tmp_path: Path):
    (tmp_path / "run").mkdir()
    network = build(spec)
    torch.save(network.state_dict(), tmp_path / "run" / "model.pth")
    encoder = partial(ConvEncoder, image_size=spec.image_size, base_channels=4)
    backbone = build_backbone(spec, network=encoder, stem="imagenet", weights=f"run:{tmp_path}/run")
    assert backbone.loaded is not None
    assert backbone.loaded.missing_keys == ("fc.weight", "fc.bias")
    trained, loaded = network.encoder.state_dict(), backbone.network.state_dict()
    for name in set(trained) - {"fc.weight", "fc.bias"}:
        assert torch.equal(trained[name], loaded[name]), name


def test_a_run_without_weights_is_named(spec: DataSpec, tmp_path: Path):
    encoder = partial(ConvEncoder, base_channels=4)
    with pytest.raises(Exception, match="type run:<folder of a finished run>"):
        build_backbone(spec, network=encoder, weights=f"run:{tmp_path}")
