"""Features of generated and of real images, computed by all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from vision_lab.core.arguments import ArgumentError, Range
from vision_lab.core.batch import Batch
from vision_lab.core.protocols import FeatureExtractor
from vision_lab.metrics.generative import MIN_SAMPLES, FeatureCollector
from vision_lab.tasks.sampling import SamplingTask

GENERATION_BATCH_SIZE = 100
"""Images that are generated at a time for metrics."""


class FeatureTask(SamplingTask):
    """A generator with a network in whose features its samples and real images can be compared.

    Args:
        feature_extractor: network whose features are compared; None to sample only.
        num_samples: number of samples for the metrics.
        arguments: arguments of ``SamplingTask``.
    """

    def __init__(
        self,
        *,
        feature_extractor: FeatureExtractor | None = None,
        num_samples: Annotated[int, Range(ge=MIN_SAMPLES)],
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.feature_extractor = feature_extractor
        self.num_samples = num_samples

    def extract(self, images: Tensor) -> Tensor:
        """Compute the features of images on the device of the task.

        Args:
            images: (N, C, H, W), uint8 or float in [0, 1].

        Returns:
            (N, D).

        Raises:
            ArgumentError: if there is no feature extractor.
        """
        if self.feature_extractor is None:
            raise ArgumentError(
                "feature_extractor", None, "another one: the metrics require features"
            )
        return self.feature_extractor(images.to(self.device))

    def extract_training_features(self, max_samples: int) -> tuple[Tensor, Tensor]:
        """Return indices (n,) and features (n, D) of training images, evenly spaced.

        Args:
            max_samples: maximum number of images.
        """
        data = self.require_data()

        def load() -> Iterator[tuple[Tensor, Tensor]]:
            for batch in data.eval_loader("train", max_samples=max_samples):
                data.record_unreadable(batch)
                if batch.samples:
                    yield get_indices(batch), batch.images

        return self._gather_features(load())

    def extract_samples(self, make: Callable[[Sequence[int]], Tensor]) -> Tensor:
        """Return the features (num_samples, D) of images made from their indices, on all ranks."""
        own_indices = range(self.global_rank, self.num_samples, self.trainer.world_size)

        def make_batches() -> Iterator[tuple[Tensor, Tensor]]:
            for start in range(0, len(own_indices), GENERATION_BATCH_SIZE):
                indices = own_indices[start : start + GENERATION_BATCH_SIZE]
                yield torch.tensor(indices), make(indices)

        return self._gather_features(make_batches())[1]

    def empty_features(self) -> Tensor:
        """Return the features (0, D) of no image, for a rank without data."""
        size = (1, self.spec.channels, *self.spec.image_size)
        return self.extract(torch.zeros(size))[:0]

    def sync_buffers(self) -> None:
        """Broadcast rank 0's batch-norm buffers, so that all ranks sample the same generator."""
        if self.trainer.world_size > 1:
            for buffer in self.sampling_generator.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def _gather_features(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return indices (n,) and features (n, D) of the images of all ranks."""
        collector = FeatureCollector()
        for indices, images in batches:
            collector.update(indices, self.extract(images))
        return collector.compute_or_empty(self.empty_features)


def get_indices(batch: Batch) -> Tensor:
    """Return the indices of the images of a batch, (N,) int64."""
    return torch.tensor([sample.index for sample in batch.samples])
