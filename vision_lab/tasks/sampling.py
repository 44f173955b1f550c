"""Images generated from latents."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vision_lab.core.arguments import Count
from vision_lab.tasks.base import Task
from vision_lab.tasks.latents import Latents, draw_each


class SamplingTask(Task):
    """A task with a network that generates images, reproducibly.

    Args:
        num_preview: number of samples to show after each epoch.
        arguments: arguments of ``Task``.
    """

    def __init__(
        self,
        *,
        num_preview: Count,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.num_preview = num_preview

    @property
    @abstractmethod
    def sampling_generator(self) -> nn.Module:
        """The network that maps latents, and labels if it is conditional, to images."""

    @property
    @abstractmethod
    def latent_dim(self) -> int:
        """Number of standard normal latent variables per image."""

    @property
    def conditional(self) -> bool:
        """Whether the network generates images of given classes."""
        return False

    def render(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """Generate images in [0, 1]; here from a network that generates normalized images.

        Args:
            latents: (N, latent_dim).
            labels: (N,) int64; None for unconditional networks.

        Returns:
            (N, C, H, W).
        """
        return (self.sampling_generator(latents, labels) * self.std + self.mean).clamp(0, 1)

    def generate(self, latents: Latents) -> Tensor:
        """Generate images with the network in evaluation mode.

        Args:
            latents: N latents.

        Returns:
            (N, C, H, W) uint8.
        """
        generator = self.sampling_generator
        was_training = generator.training
        inputs = latents.latents.to(self.mean.dtype)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            generator.eval()
            images = self.render(inputs, latents.labels)
        generator.train(was_training)
        return (images * 255).round().to(torch.uint8)

    def sample_latents(
        self,
        indices: Sequence[int],
        *,
        labels: Sequence[int] | None = None,
    ) -> Latents:
        """Sample latents as a function of the seed and the index of each sample.

        Args:
            indices: indices of the samples, from 0.
            labels: label of each sample; None for all classes in turn.
        """
        latents = draw_each(torch.randn, indices, [self.latent_dim], seed=self.seed)
        latents = latents.to(self.device)
        if not self.conditional:
            return Latents(latents, None)
        if labels is None:
            labels = [index % self.spec.num_classes for index in indices]
        return Latents(latents, torch.tensor(list(labels), device=self.device))

    def sample_images(self) -> tuple[Tensor, Tensor | None] | None:
        """Generate the first samples, always from the same latents."""
        latents = self.sample_latents(range(self.num_preview))
        return self.generate(latents), latents.labels
