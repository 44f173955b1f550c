"""Autoencoders: an encoder to a short code, and a decoder from it; plain or variational.

Hinton, Salakhutdinov: Reducing the Dimensionality of Data with Neural Networks, 2006.
https://doi.org/10.1126/science.1127647
Kingma, Welling: Auto-Encoding Variational Bayes, 2013. https://arxiv.org/abs/1312.6114

The papers have fully connected layers. Here the encoder is any classifier, whose logits are the
code, and the decoder mirrors ``ConvEncoder``: it enlarges feature maps by nearest neighbors before
each convolution, which leaves no checkerboard (Odena 2016).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import ceil

import torch
from torch import Tensor, nn

from vision_lab.core.arguments import ArgumentError, Width
from vision_lab.core.checking import check_arguments
from vision_lab.core.protocols import LoadedWeights, Reconstruction
from vision_lab.core.spec import DataSpec
from vision_lab.models import introspection
from vision_lab.models.architectures.conv_encoder import block_channels
from vision_lab.models.stem import set_in_channels
from vision_lab.models.weights import load

LOG_VARIANCE_RANGE = (-12.0, 6.0)
"""Limits of predicted log variances, so that their exponentials stay finite."""


class ConvDecoder(nn.Module):
    """Maps codes (N, latent_dim) to logits of images (N, image_channels, H, W).

    Args:
        latent_dim: length of a code.
        image_channels: number of image channels.
        image_size: (height, width) of the images.
        base_channels: channels of the last feature map; those before it have twice as many each.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        image_channels: int,
        image_size: tuple[int, int],
        base_channels: int,
    ) -> None:
        super().__init__()
        channels = block_channels(image_size, base_channels=base_channels, num_blocks=None)[::-1]
        self.image_size = image_size
        scale = 2 ** len(channels)
        self.grid_size = (ceil(image_size[0] / scale), ceil(image_size[1] / scale))
        self.fc = nn.Linear(latent_dim, channels[0] * self.grid_size[0] * self.grid_size[1])
        blocks = []
        for in_channels, out_channels in pairwise([*channels, base_channels]):
            blocks.append(UpBlock(in_channels, out_channels))
        self.features = nn.Sequential(*blocks)
        self.image = nn.Conv2d(base_channels, image_channels, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        features = self.fc(codes).unflatten(1, (-1, *self.grid_size))
        logits = self.image(self.features(features))
        height, width = self.image_size
        return logits[:, :, :height, :width]


class UpBlock(nn.Sequential):
    """Twice the height and width, a convolution, batch norm and leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2),
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(0.2, inplace=True),
        )


class Autoencoder(nn.Module):
    """Maps normalized images (N, C, H, W) to a ``Reconstruction``.

    In training, the code of a variational autoencoder is drawn from its distribution; in
    evaluation, it is the mean.

    Args:
        encoder: maps images to codes, or to means and log variances one after the other.
        decoder: maps codes to logits of images.
        latent_dim: length of a code.
        is_variational: whether the encoder predicts distributions.
    """

    loaded: LoadedWeights | None = None

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        latent_dim: int,
        is_variational: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.latent_dim = latent_dim
        self.is_variational = is_variational

    def forward(self, images: Tensor) -> Reconstruction:
        if not self.is_variational:
            codes = self.encoder(images)
            return Reconstruction(self.decoder(codes), codes, None)
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        log_variance = log_variance.clamp(*LOG_VARIANCE_RANGE)
        codes = mean
        if self.training:
            codes = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        return Reconstruction(self.decoder(codes), mean, log_variance)


@check_arguments
def autoencoder(
    spec: DataSpec,
    *,
    encoder: Callable[..., nn.Module],
    latent_dim: Width,
    base_channels: Width,
    variational: bool = False,
    weights: str | None = None,
) -> Autoencoder:
    """Build an encoder and a decoder.

    Args:
        spec: spec of the data.
        encoder: creates a classifier from ``num_classes``, the length of what it returns.
        latent_dim: length of a code.
        base_channels: channels of the decoder's last feature map.
        variational: whether the encoder predicts distributions of codes.
        weights: file with the weights of both networks; None for random ones.

    Raises:
        ArgumentError: if the encoder does not run on images of this size.
        ConfigurationError: if the weights do not fit.
    """
    classifier = encoder(num_classes=2 * latent_dim if variational else latent_dim)
    set_in_channels(classifier, spec.channels)
    error = introspection.forward_error(classifier, channels=spec.channels, size=spec.image_size)
    if error:
        needed = f"another size: the encoder does not run at it ({error})"
        raise ArgumentError("image_size", list(spec.image_size), needed)
    decoder = ConvDecoder(
        latent_dim=latent_dim,
        image_channels=spec.channels,
        image_size=spec.image_size,
        base_channels=base_channels,
    )
    network = Autoencoder(classifier, decoder, latent_dim=latent_dim, is_variational=variational)
    if weights:
        network.loaded = load(network, weights, constructor="autoencoder", class_layers=())
    return network
