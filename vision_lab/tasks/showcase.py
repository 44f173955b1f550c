"""What the test of a generator shows: interpolations, nearest neighbors, real images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vision_lab.metrics.generative import nearest_neighbors
from vision_lab.tasks.latents import Latents, interpolate

if TYPE_CHECKING:
    from vision_lab.tasks.generation import GenerationTask

NUM_SHOWN = 8
"""Samples of which neighbors are searched, and from which interpolations start and end."""

INTERPOLATION_STEPS = 10
"""Images of an interpolation between two samples, including both."""

NUM_NEIGHBORS = 3
"""Nearest training images to find for a sample."""

MAX_CANDIDATES = 10_000
"""Maximum number of training images, evenly spaced, in which neighbors are searched."""


def generate_interpolations(task: GenerationTask) -> Tensor:
    """Generate interpolations between pairs of samples, with the label of the first one.

    Args:
        task: the task with the generator.

    Returns:
        (pairs, ``INTERPOLATION_STEPS``, C, H, W) uint8.
    """
    ends = task.sample_latents(range(NUM_SHOWN))
    labels = ends.labels
    if labels is not None:
        labels = labels[::2].repeat_interleave(INTERPOLATION_STEPS)
    images = task.generate(Latents(interpolate(ends.latents, INTERPOLATION_STEPS), labels))
    return images.unflatten(0, (-1, INTERPOLATION_STEPS))


def load_real_images(task: GenerationTask) -> Tensor:
    """Load as many training images as there are samples in the preview.

    Args:
        task: the task with the data.

    Returns:
        (n, C, H, W) uint8.
    """
    data = task.require_data()
    indices = range(min(task.num_preview, len(data.splits["train"])))
    return torch.stack(data.load_images("train", indices, max_samples=task.num_preview))


def find_neighbors(
    task: GenerationTask,
    fake: Tensor,
    labels: Sequence[int] | None,
) -> dict[str, Tensor]:
    """Find the training images whose features are nearest to those of evenly spaced samples.

    Args:
        task: the task with the generator and the data.
        fake: (m, D) features of m samples.
        labels: their m labels; None for unconditional generators.

    Returns:
        ``neighbors``, (n, 1 + k, C, H, W) uint8 samples, each followed by its neighbors; and
        ``num_candidates``, the number of training images compared.
    """
    chosen = [number * len(fake) // NUM_SHOWN for number in range(NUM_SHOWN)]
    indices, features = task.extract_training_features(MAX_CANDIDATES)
    count = min(NUM_NEIGHBORS, len(features))
    neighbors = indices[nearest_neighbors(fake[chosen], features, count=count)].tolist()
    chosen_labels = None if labels is None else [labels[index] for index in chosen]
    samples = task.generate(task.sample_latents(chosen, labels=chosen_labels)).cpu()
    rows = []
    for sample, nearest in zip(samples, neighbors, strict=True):
        real = task.require_data().load_images("train", nearest, max_samples=MAX_CANDIDATES)
        missing = [torch.zeros_like(sample)] * (count - len(real))  # unreadable meanwhile
        rows.append(torch.stack([sample, *real, *missing]))
    return {"neighbors": torch.stack(rows), "num_candidates": torch.tensor([len(features)])}
