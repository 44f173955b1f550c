"""Sampling from a GAN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vision_lab.core.arguments import Count
from vision_lab.tasks.gan import GanTask
from vision_lab.tasks.latents import Latents, draw_each


class SamplingTask(GanTask):
    """A GAN that generates images, reproducibly.

    Args:
        num_preview: number of samples to show after each epoch.
        arguments: arguments of ``GanTask``.
    """

    generates_images = True

    def __init__(
        self,
        *,
        num_preview: Count,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.num_preview = num_preview

    def generate(self, latents: Latents) -> Tensor:
        """Generate images with the averaged generator in evaluation mode.

        Args:
            latents: N latents.

        Returns:
            (N, C, H, W) uint8.
        """
        generator = self.sampling_generator
        was_training = generator.training
        inputs = latents.latents.to(self.mean.dtype)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            images = generator.eval()(inputs, latents.labels)
        generator.train(was_training)
        return ((images * self.std + self.mean).clamp(0, 1) * 255).round().to(torch.uint8)

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
        latents = draw_each(torch.randn, indices, [self.pair.latent_dim], seed=self.seed)
        latents = latents.to(self.device)
        if not self.pair.conditional:
            return Latents(latents, None)
        if labels is None:
            labels = [index % self.spec.num_classes for index in indices]
        return Latents(latents, torch.tensor(list(labels), device=self.device))

    def sample_images(self) -> tuple[Tensor, Tensor | None]:
        """Generate the first samples, always from the same latents."""
        latents = self.sample_latents(range(self.num_preview))
        return self.generate(latents), latents.labels

    def flop_inputs(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        latents = torch.empty(1, self.pair.latent_dim, device="meta")
        if not self.pair.conditional:
            return self.pair.generator, (latents,)
        labels = torch.zeros(1, dtype=torch.int64, device="meta")
        return self.pair.generator, (latents, labels)

    def predict_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Generate images from latents and, for conditional generators, labels."""
        latents, *labels = batch
        return self.generate(Latents(latents, labels[0] if labels else None))
