"""Inputs of generators, as functions of a seed and the index of each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vision_lab.training.seeding import derive_seed


class Latents(NamedTuple):
    """Inputs of a generator."""

    latents: Tensor
    """(N, latent_dim), standard normal."""
    labels: Tensor | None
    """(N,) int64; None for unconditional generators."""


def draw_each(
    draw: Callable[..., Tensor],
    indices: Sequence[int],
    shape: Sequence[int],
    *,
    seed: int,
) -> Tensor:
    """Draw random numbers for each index, which are the same whatever the other indices are.

    Args:
        draw: ``torch.randn`` or ``torch.rand``.
        indices: n indices of samples.
        shape: shape of one sample.
        seed: seed of all samples.

    Returns:
        (n, *shape) float32.
    """
    samples = []
    for index in indices:
        generator = torch.Generator().manual_seed(derive_seed(seed, index))
        samples.append(draw(list(shape), generator=generator))
    return torch.stack(samples)


def interpolate(latents: Tensor, steps: int) -> Tensor:
    """Interpolate between pairs of latents along arcs (White 2016), since most are near a sphere.

    Args:
        latents: (2 n, D), the first and last of each pair one after the other.
        steps: number of latents of each interpolation, including both ends.

    Returns:
        (n * steps, D).
    """
    weights = torch.linspace(0, 1, steps, device=latents.device)[:, None]
    pairs = zip(latents[::2], latents[1::2], strict=True)
    return torch.cat([slerp(first, last, weights) for first, last in pairs])


def slerp(
    first: Tensor,
    last: Tensor,
    weights: Tensor,
) -> Tensor:
    """Interpolate between two vectors along the arc between them.

    Args:
        first: (D,).
        last: (D,).
        weights: (n, 1), from 0 for ``first`` to 1 for ``last``.

    Returns:
        (n, D).
    """
    angle = torch.arccos(F.cosine_similarity(first, last, dim=0).clamp(-0.9999, 0.9999))
    total = torch.sin((1 - weights) * angle) * first + torch.sin(weights * angle) * last
    return total / torch.sin(angle)
