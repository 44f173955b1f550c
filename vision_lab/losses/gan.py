"""What a generator and a discriminator learn from each other: three losses, two penalties."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vision_lab.core.errors import ConfigurationError

ScoreFn = Callable[[Tensor], Tensor]
"""(N, C, H, W) pictures -> (N,) scores, those of real ones higher."""


class AdversarialLoss(ABC):
    """Two losses of (N,) scores, each to be made small by one of the networks."""

    has_zero_threshold: bool = True
    """Whether a discriminator that is right gives real pictures scores above 0, and made ones scores below."""

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Small where real pictures score high and made ones low."""

    @abstractmethod
    def generator(self, fake: Tensor) -> Tensor:
        """Small where made pictures score high."""


class NonSaturating(AdversarialLoss):
    """Cross-entropy, the generator's with its labels turned (Goodfellow 2014, section 3). In DCGAN as published.

    Args:
        real_label: what real pictures count as; below 1 the discriminator is kept from being too sure (one-sided label
            smoothing, Salimans 2016, section 3.4).
    """

    def __init__(self, real_label: float = 1.0) -> None:
        if not 0.5 < real_label <= 1:
            raise ConfigurationError(
                f"task.real_label_value={real_label}: type a number above 0.5, at most 1"
            )
        self.real_label = real_label

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        right = torch.full_like(real, self.real_label)
        return F.binary_cross_entropy_with_logits(real, right) + F.softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return F.softplus(-fake).mean()


class Hinge(AdversarialLoss):
    """What lies beyond a margin does not count (Lim 2017; Miyato 2018, equations 16 and 17)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return -fake.mean()


class Wasserstein(AdversarialLoss):
    """The difference of mean scores (Arjovsky 2017), to go with ``gradient_penalty`` (Gulrajani 2017)."""

    parts_at_zero = False

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        return -fake.mean()


def make_loss(name: str, *, real_label: float) -> AdversarialLoss:
    """The loss of ``task.loss``.

    Raises:
        ConfigurationError: where there is none of that name.
    """
    if name == "bce":
        return NonSaturating(real_label)
    if name == "hinge":
        return Hinge()
    if name == "wgan_gp":
        return Wasserstein()
    raise ConfigurationError(f"task.loss={name}: type bce, hinge or wgan_gp")


def gradient_penalty(scores: ScoreFn, real: Tensor, fake: Tensor) -> Tensor:
    """How far the slope's length is from 1 between real and made pictures, squared (Gulrajani 2017, equation 3).

    Args:
        scores: of pictures.
        real: (N, C, H, W).
        fake: as many.
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake, real, share)
    return (_input_gradients(scores, between).flatten(1).norm(dim=1) - 1).square().mean()


def r1_penalty(scores: ScoreFn, real: Tensor) -> Tensor:
    """Half of the slope's squared length at real pictures (Mescheder 2018, equation 9)."""
    return _input_gradients(scores, real).flatten(1).square().sum(dim=1).mean() / 2


def _input_gradients(scores: ScoreFn, pictures: Tensor) -> Tensor:
    """Of each picture's score by its pixels, (N, C, H, W), from which one can learn; not in mixed precision."""
    with torch.autocast(pictures.device.type, enabled=False):
        pictures = pictures.detach().requires_grad_(True)
        (slopes,) = torch.autograd.grad(scores(pictures).sum(), pictures, create_graph=True)
    return slopes
