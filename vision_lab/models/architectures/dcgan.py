"""DCGAN: a generator and a discriminator of strided convolutions.

Radford, Metz, Chintala: Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks,
2015. https://arxiv.org/abs/1511.06434

The generator turns a latent vector into a map of 4x4 and doubles it until it has the picture's size; the discriminator
goes the way back. Kernels of 4x4 that step by 2, batch norm but for the generator's last and the discriminator's first
layer, ReLU in the one, leaky ReLU in the other, tanh at the end, first weights N(0, 0.02). The paper's pictures have 64
pixels; other powers of two take a doubling more or less. Beyond the paper: classes, spectral norm, other norms.
"""

from __future__ import annotations

from itertools import pairwise
from math import log2
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalised

from vision_lab.core.arguments import Width
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.protocols import LoadedWeights
from vision_lab.core.spec import DataSpec
from vision_lab.models.weights import load

SIZES = (16, 32, 64, 128)
"""Pixels of a picture's side."""

Norm = Literal["batch", "layer", "none"]
Condition = Literal["concatenation", "projection"]


class Generator(nn.Module):
    """(N, latent), and (N,) labels or None -> (N, C, size, size) pictures in [-1, 1].

    Args:
        latent: numbers that a picture is made of.
        channels: of a picture.
        size: of a picture's side.
        width: filters before the last doubling.
        classes: how many the labels know; 0: it takes none. They stand beside the latent vector, one-hot (Mirza 2014).
    """

    def __init__(
        self, *, latent: int, channels: int, size: int, width: int, classes: int = 0
    ) -> None:
        super().__init__()
        self.classes = classes
        widths = _widths(size, width)[::-1]
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent + classes, widths[0], 4, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        for before, after in pairwise(widths):
            doubling = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
            layers += [doubling, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        _initialise(self)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.classes:
            assert labels is not None
            latents = torch.cat([latents, F.one_hot(labels, self.classes).to(latents.dtype)], dim=1)
        return self.layers(latents[:, :, None, None])


class Discriminator(nn.Module):
    """(N, C, size, size) pictures in [-1, 1], and (N,) labels or None -> (N,) scores, those of real ones higher.

    Args:
        channels: of a picture.
        size: of a picture's side.
        width: filters of the first layer.
        norm: behind each layer but the first and the last.
        classes: how many the labels know; 0: it takes none.
        condition: with ``concatenation`` a learnt plane for the class stands beside the picture's channels (Mirza
            2014); with ``projection`` the product of the class's vector and the last maps, summed, is added to the
            score (Miyato 2018).
        spectral_norm: divide each layer's weights by their largest singular value (Miyato 2018).
    """

    def __init__(
        self,
        *,
        channels: int,
        size: int,
        width: int,
        norm: Norm = "batch",
        classes: int = 0,
        condition: Condition | None = None,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.size = size
        widths = _widths(size, width)
        planes = condition == "concatenation"
        layers: list[nn.Module] = [
            nn.Conv2d(channels + planes, widths[0], 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for before, after in pairwise(widths):
            layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=norm == "none"))
            layers += [*_norm(norm, after), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.score = nn.Conv2d(widths[-1], 1, 4)
        self.planes = nn.Embedding(classes, size * size) if planes else None
        self.projection = nn.Embedding(classes, widths[-1]) if condition == "projection" else None
        _initialise(self)
        if spectral_norm:
            for module in [
                m for m in self.modules() if isinstance(m, nn.Conv2d) or m is self.projection
            ]:
                normalised(module)

    def forward(self, pictures: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.planes is not None:
            assert labels is not None
            plane = self.planes(labels).view(-1, 1, self.size, self.size)
            pictures = torch.cat([pictures, plane.to(pictures.dtype)], dim=1)
        maps = self.layers(pictures)
        scores = self.score(maps).flatten()
        if self.projection is not None:
            assert labels is not None
            scores = scores + (self.projection(labels) * maps.sum(dim=(2, 3))).sum(dim=1)
        return scores


class DCGAN(nn.Module):
    """The pair; see the Protocol ``Adversarial``. Called, it makes pictures."""

    loaded: LoadedWeights | None = None

    def __init__(self, generator: Generator, discriminator: Discriminator, *, latent: int) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.latent = latent
        self.conditional = generator.classes > 0

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.generator(latents, labels)


def dcgan(
    spec: DataSpec,
    *,
    latent_dim: Width,
    generator_channels: Width,
    discriminator_channels: Width,
    discriminator_norm: Norm,
    spectral_norm: bool,
    conditioning: Condition | None,
    weights: str | None,
) -> DCGAN:
    """Make a pair for the data; see ``Generator`` and ``Discriminator``.

    Args:
        spec: the pictures it is for, of a power of two from 16 to 128 pixels, as wide as high.
        latent: numbers that a picture is made of.
        generator_width: filters before the generator's last doubling.
        discriminator_width: filters of the discriminator's first layer.
        discriminator_norm: behind its layers: ``batch`` as published, ``layer`` (over all channels and pixels) or
            ``none``.
        spectral_norm: of the discriminator's weights.
        condition: None, or how the discriminator takes the classes of the data.
        weights: None, or a file of both networks.

    Raises:
        ConfigurationError: where an argument or the pictures' size does not fit, or the data has no classes.
    """
    _check(spec, conditioning)
    classes = spec.num_classes if conditioning else 0
    shape = {"channels": spec.channels, "size": spec.image_size[0], "classes": classes}
    pair = DCGAN(
        Generator(latent=latent_dim, width=generator_channels, **shape),
        Discriminator(
            width=discriminator_channels,
            norm=discriminator_norm,
            condition=conditioning,
            spectral_norm=spectral_norm,
            **shape,
        ),
        latent=latent_dim,
    )
    if weights:
        pair.loaded = load(pair, weights, constructor="dcgan", class_layers=())
    return pair


def _check(spec: DataSpec, condition: str | None) -> None:
    height, width = spec.image_size
    errors = []
    if height != width or height not in SIZES:
        size = next((size for size in SIZES if size >= max(height, width)), SIZES[-1])
        errors.append(
            f"dcgan makes pictures of {', '.join(map(str, SIZES[:-1]))} or {SIZES[-1]} pixels, as wide as high, not of "
            f"{height}x{width}: type data.spec.image_size=[{size},{size}]"
        )
    if condition and spec.target_type != "labels":
        errors.append(
            f"model.conditioning={condition} needs a class for each picture: type model.conditioning=null"
        )
    if errors:
        raise ConfigurationError("\n".join(errors))


def _widths(size: int, width: int) -> list[int]:
    """Filters of each stage, from the picture's side to the map of 4x4."""
    return [width * 2**stage for stage in range(int(log2(size)) - 2)]


def _norm(norm: Norm, channels: int) -> list[nn.Module]:
    if norm == "none":
        return []
    return [nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels)]


def _initialise(network: nn.Module) -> None:
    """The paper's first weights."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
