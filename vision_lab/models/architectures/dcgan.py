"""DCGAN: a generator and a discriminator of strided convolutions.

Radford, Metz, Chintala: Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks, 2015. https://arxiv.org/abs/1511.06434

The generator maps latents to a 4x4 feature map and doubles its size until it is that of the image;
the discriminator mirrors it. Kernels are 4x4 with stride 2; batch norm follows all layers but the
generator's last and the discriminator's first; activations are ReLU, leaky ReLU and, at the end,
tanh; initial weights are N(0, 0.02). The paper's images have 64 pixels; for other powers of two
there is a layer more or less. Conditioning, spectral norm and other norms are not from the paper.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import log2
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from vision_lab.core.arguments import ArgumentError, Width
from vision_lab.core.checking import check_arguments
from vision_lab.core.protocols import LoadedWeights
from vision_lab.core.spec import DataSpec
from vision_lab.models.weights import load

IMAGE_SIZES = (16, 32, 64, 128)
"""Supported sides of the square images, in pixels."""

INIT_STD = 0.02

Norm = Literal["batch", "layer", "none"]
Conditioning = Literal["concatenation", "projection"]


class Generator(nn.Module):
    """Maps (N, latent_dim), and (N,) labels or None, to images (N, C, size, size) in [-1, 1].

    Args:
        latent_dim: number of latent variables of an image.
        image_channels: number of channels C.
        image_size: side of the images.
        channels: channels before the last upsampling; earlier layers have twice as many each.
        num_classes: number of classes; 0 for an unconditional generator. Labels are concatenated
            with the latents, one-hot (Mirza 2014).
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        image_channels: int,
        image_size: int,
        channels: int,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        widths = _stage_channels(image_size, channels)[::-1]
        upsample = partial(nn.ConvTranspose2d, kernel_size=4, stride=2, padding=1)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent_dim + num_classes, widths[0], 4, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        for in_channels, out_channels in pairwise(widths):
            layers += [
                upsample(in_channels, out_channels, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
        layers += [upsample(widths[-1], image_channels), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        _init_weights(self)

    def forward(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        if self.num_classes:
            assert labels is not None
            one_hot = F.one_hot(labels, self.num_classes).to(latents.dtype)
            latents = torch.cat([latents, one_hot], dim=1)
        return self.layers(latents[:, :, None, None])


class Discriminator(nn.Module):
    """Maps images (N, C, size, size) in [-1, 1], and (N,) labels or None, to scores (N,).

    Args:
        image_channels: number of channels C.
        image_size: side of the images.
        channels: channels of the first layer; later layers have twice as many each.
        norm: normalization after all layers but the first and the last.
        num_classes: number of classes; 0 for an unconditional discriminator.
        conditioning: with ``concatenation``, a learned plane for the class is concatenated with the
            image (Mirza 2014); with ``projection``, the inner product of the class embedding and
            the summed last features is added to the score (Miyato 2018).
        spectral_norm: whether to divide weights by their largest singular value (Miyato 2018).
    """

    def __init__(
        self,
        *,
        image_channels: int,
        image_size: int,
        channels: int,
        norm: Norm = "batch",
        num_classes: int = 0,
        conditioning: Conditioning | None = None,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        widths = _stage_channels(image_size, channels)
        downsample = partial(nn.Conv2d, kernel_size=4, stride=2, padding=1)
        has_planes = conditioning == "concatenation"
        layers: list[nn.Module] = [
            downsample(image_channels + has_planes, widths[0]),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for in_channels, out_channels in pairwise(widths):
            layers += [
                downsample(in_channels, out_channels, bias=norm == "none"),
                *_make_norm(norm, out_channels),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.score = nn.Conv2d(widths[-1], 1, 4)
        self.planes = nn.Embedding(num_classes, image_size**2) if has_planes else None
        has_projection = conditioning == "projection"
        self.projection = nn.Embedding(num_classes, widths[-1]) if has_projection else None
        _init_weights(self)
        if spectral_norm:
            self._apply_spectral_norm()

    def forward(
        self,
        images: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        if self.planes is not None:
            assert labels is not None
            planes = self.planes(labels).view(-1, 1, self.image_size, self.image_size)
            images = torch.cat([images, planes.to(images.dtype)], dim=1)
        features = self.layers(images)
        scores = self.score(features).flatten()
        if self.projection is not None:
            assert labels is not None
            scores = scores + (self.projection(labels) * features.sum(dim=(2, 3))).sum(dim=1)
        return scores

    def _apply_spectral_norm(self) -> None:
        for module in list(self.modules()):
            if isinstance(module, nn.Conv2d) or module is self.projection:
                parametrizations.spectral_norm(module)


class DCGAN(nn.Module):
    """Both networks; see ``GanNetworks``. A call generates images.

    Args:
        generator: the generator.
        discriminator: the discriminator.
        latent_dim: number of latent variables of an image.
    """

    loaded: LoadedWeights | None = None

    def __init__(
        self, generator: Generator, discriminator: Discriminator, *, latent_dim: int
    ) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.latent_dim = latent_dim
        self.conditional = generator.num_classes > 0

    def forward(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        return self.generator(latents, labels)


@check_arguments
def dcgan(
    spec: DataSpec,
    *,
    latent_dim: Width = 100,
    generator_channels: Width = 48,
    discriminator_channels: Width = 24,
    discriminator_norm: Norm = "batch",
    spectral_norm: bool = False,
    conditioning: Conditioning | None = None,
    weights: str | None = None,
) -> DCGAN:
    """Build a generator and a discriminator.

    Args:
        spec: spec of the data; images must be square, with a power of two from 16 to 128 pixels.
        latent_dim: number of latent variables of an image.
        generator_channels: channels before the generator's last upsampling.
        discriminator_channels: channels of the discriminator's first layer.
        discriminator_norm: normalization of the discriminator: ``batch`` as in the paper, ``layer``
            (over all channels and pixels) or ``none``.
        spectral_norm: whether to apply spectral norm to the discriminator.
        conditioning: how the discriminator uses labels; None for unconditional networks.
        weights: file with the weights of both networks; None for random ones.

    Raises:
        ConfigurationError: if the image size is not supported, the data has no labels for
            ``conditioning``, or the weights do not fit.
    """
    _check_spec(spec, conditioning)
    num_classes = spec.num_classes if conditioning else 0
    image_size = spec.image_size[0]
    generator = Generator(
        latent_dim=latent_dim,
        image_channels=spec.channels,
        image_size=image_size,
        channels=generator_channels,
        num_classes=num_classes,
    )
    discriminator = Discriminator(
        image_channels=spec.channels,
        image_size=image_size,
        channels=discriminator_channels,
        norm=discriminator_norm,
        num_classes=num_classes,
        conditioning=conditioning,
        spectral_norm=spectral_norm,
    )
    pair = DCGAN(generator, discriminator, latent_dim=latent_dim)
    if weights:
        pair.loaded = load(pair, weights, constructor="dcgan", class_layers=())
    return pair


def _check_spec(spec: DataSpec, conditioning: str | None) -> None:
    height, width = spec.image_size
    if height != width or height not in IMAGE_SIZES:
        suggested = next((s for s in IMAGE_SIZES if s >= max(height, width)), IMAGE_SIZES[-1])
        sizes = f"{', '.join(map(str, IMAGE_SIZES[:-1]))} or {IMAGE_SIZES[-1]}"
        needed = f"[{suggested},{suggested}]: dcgan generates square images of {sizes} pixels"
        raise ArgumentError("image_size", list(spec.image_size), needed)
    if conditioning and spec.target_type != "labels":
        raise ArgumentError("conditioning", conditioning, "null: the data has no labels")


def _stage_channels(image_size: int, channels: int) -> list[int]:
    """Return the channels of each stage, from the size of the image to the 4x4 feature map."""
    return [channels * 2**stage for stage in range(int(log2(image_size)) - 2)]


def _make_norm(norm: Norm, channels: int) -> list[nn.Module]:
    if norm == "none":
        return []
    return [nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels)]


def _init_weights(network: nn.Module) -> None:
    """Initialize weights as in the paper."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
            nn.init.normal_(module.weight, 0.0, INIT_STD)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, INIT_STD)
