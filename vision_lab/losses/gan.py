"""Losses and gradient penalties of GANs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from vision_lab.core.arguments import ArgumentError, NonNegative, Range

ScoreFn = Callable[[Tensor], Tensor]
"""Maps images (N, C, H, W) to scores (N,), which are higher for real images."""


class AdversarialLoss(ABC):
    """A loss of the discriminator and a loss of the generator, both functions of scores (N,)."""

    has_zero_threshold: bool = True
    """Whether a perfect discriminator gives real images positive and generated ones negative
    scores."""

    penalizes_gradients: bool = False
    """Whether there is a penalty of the discriminator's gradients."""

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Compute the loss of the discriminator.

        Args:
            real: (N,) scores of real images.
            fake: (N,) scores of generated images.

        Returns:
            A scalar.
        """

    @abstractmethod
    def generator(self, fake: Tensor) -> Tensor:
        """Compute the loss of the generator.

        Args:
            fake: (N,) scores of generated images.

        Returns:
            A scalar.
        """

    def penalty(
        self,
        score: ScoreFn,  # noqa: ARG002
        real: Tensor,
        fake: Tensor,  # noqa: ARG002
    ) -> Tensor:
        """Compute the weighted penalty of the discriminator's gradients, 0 if there is none.

        Args:
            score: the discriminator.
            real: (N, C, H, W) real images.
            fake: (N, C, H, W) generated images.

        Returns:
            A scalar.
        """
        return real.new_zeros(())


class NonSaturating(AdversarialLoss):
    """Binary cross-entropy, with flipped labels for the generator (Goodfellow 2014, section 3).

    Args:
        real_label: target of real images; below 1 for one-sided label smoothing (Salimans 2016,
            section 3.4).

    Raises:
        ArgumentError: if ``real_label`` is not in (0.5, 1].
    """

    def __init__(self, real_label: Annotated[float, Range(gt=0.5, le=1)] = 1.0) -> None:
        if not 0.5 < real_label <= 1:
            raise ArgumentError("real_label", real_label, "a number above 0.5, at most 1")
        self.real_label = real_label

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        targets = torch.full_like(real, self.real_label)
        return F.binary_cross_entropy_with_logits(real, targets) + F.softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return F.softplus(-fake).mean()


class Hinge(AdversarialLoss):
    """Hinge loss (Lim 2017; Miyato 2018, equations 16 and 17)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return -fake.mean()


class Wasserstein(AdversarialLoss):
    """Wasserstein loss (Arjovsky 2017) with gradient penalty (Gulrajani 2017).

    Args:
        gradient_penalty_weight: weight of the penalty; 0 to disable.
    """

    has_zero_threshold = False

    def __init__(self, gradient_penalty_weight: NonNegative = 10.0) -> None:
        self.gradient_penalty_weight = gradient_penalty_weight
        self.penalizes_gradients = gradient_penalty_weight > 0

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        return -fake.mean()

    def penalty(
        self,
        score: ScoreFn,
        real: Tensor,
        fake: Tensor,
    ) -> Tensor:
        if not self.penalizes_gradients:
            return super().penalty(score, real, fake)
        return self.gradient_penalty_weight * gradient_penalty(score, real, fake)


def gradient_penalty(
    score: ScoreFn,
    real: Tensor,
    fake: Tensor,
) -> Tensor:
    """Compute WGAN-GP's penalty of gradient norms other than 1 (Gulrajani 2017, equation 3).

    Args:
        score: the discriminator.
        real: (N, C, H, W) real images.
        fake: (N, C, H, W) generated images.
    """
    weights = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    interpolated = torch.lerp(fake, real, weights)
    return (_input_gradients(score, interpolated).flatten(1).norm(dim=1) - 1).square().mean()


def r1_penalty(score: ScoreFn, real: Tensor) -> Tensor:
    """Compute half the squared gradient norm at real images (Mescheder 2018, equation 9).

    Args:
        score: the discriminator.
        real: (N, C, H, W) real images.
    """
    return _input_gradients(score, real).flatten(1).square().sum(dim=1).mean() / 2


def _input_gradients(score: ScoreFn, images: Tensor) -> Tensor:
    """Return differentiable gradients of scores by pixels, (N, C, H, W), in full precision."""
    with torch.autocast(images.device.type, enabled=False):
        images = images.detach().requires_grad_(True)
        (gradients,) = torch.autograd.grad(score(images).sum(), images, create_graph=True)
    return gradients
