"""``task=generate``: images like those of the data, generated from noise, measured and drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision_lab.core.arguments import Count, Range
from vision_lab.core.batch import Batch
from vision_lab.core.errors import DataError
from vision_lab.core.spec import Split
from vision_lab.metrics.generative import (
    GENERATIVE_METRICS,
    MIN_SAMPLES,
    FeatureCollector,
    diversity,
    fid,
    generative_metrics,
    nearest_neighbors,
)
from vision_lab.tasks.gan import GanTask
from vision_lab.training.seeding import derive_seed

NUM_SAMPLES_SHOWN = 8
"""Samples of which neighbors are searched, and from which interpolations start and end."""

INTERPOLATION_STEPS = 10
"""Images of an interpolation between two samples, including both."""

NUM_NEIGHBORS = 3
"""Nearest training images to find for a sample."""

MAX_NEIGHBOR_CANDIDATES = 10_000
"""Maximum number of training images, evenly spaced, in which neighbors are searched."""

GENERATION_BATCH_SIZE = 100
"""Images that are generated at a time for metrics."""


class Latents(NamedTuple):
    """Inputs of a generator."""

    latents: Tensor
    """(N, latent_dim), standard normal."""
    labels: Tensor | None
    """(N,) int64; None for unconditional generators."""


class GenerationTask(GanTask):
    """A GAN whose samples are compared with real images.

    Metrics of a split are FID, KID, precision and recall of ``num_samples`` samples and their
    diversity. ``real_fid`` and so on are those of as many real training images (or of all of them),
    as a reference for the best possible values. The test also measures ``noise_fid``, the FID of
    uniform noise.

    Args:
        feature_extractor: maps images (N, C, H, W), uint8 or float in [0, 1], to features (N, D).
        feature_extractor_name: its name, reported with the metrics.
        num_samples: number of samples for the metrics.
        num_preview: number of samples to show after each epoch.
        arguments: arguments of ``GanTask``.

    Raises:
        ConfigurationError: if a setting is invalid.
    """

    def __init__(
        self,
        *,
        feature_extractor: Callable[[Tensor], Tensor],
        feature_extractor_name: str,
        num_samples: Annotated[int, Range(ge=MIN_SAMPLES)],
        num_preview: Count,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.feature_extractor = feature_extractor
        self.feature_extractor_name = feature_extractor_name
        self.num_samples = num_samples
        self.num_preview = num_preview
        for split in ("val", "test"):
            collectors = {"real": FeatureCollector(), "labels": FeatureCollector()}
            self.split_metrics[f"on_{split}"] = nn.ModuleDict(collectors)
        self.training_features: Tensor | None = None
        """(n, D) features of ``num_samples`` training images, evenly spaced."""
        self.real_baselines: dict[str, tuple[Tensor, dict[str, Tensor]]] = {}
        """Features of each split and metrics of training images on it, which stay the same."""
        self.num_images: dict[str, int] = {}
        """Number of real images that the metrics are computed from."""
        self.shown: dict[str, Tensor] = {}
        """Images of the last test, for the report."""

    def metric_names(self, split: str) -> set[str]:
        if split == "train":
            return super().metric_names(split)
        names = {*GENERATIVE_METRICS, "diversity"}
        return names | {f"real_{name}" for name in GENERATIVE_METRICS}

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
        self, indices: Sequence[int], *, labels: Sequence[int] | None = None
    ) -> Latents:
        """Sample latents as a function of the seed and the index of each sample.

        Args:
            indices: indices of the samples, from 0.
            labels: label of each sample; None for all classes in turn.
        """
        shape = [self.pair.latent_dim]
        rows = [_draw_seeded(torch.randn, shape, self.seed, index) for index in indices]
        latents = torch.stack(rows).to(self.device)
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

    def metric_settings(self) -> dict[str, Any]:
        """Return the feature extractor and the numbers of generated and real images."""
        settings = {
            "feature_extractor": self.feature_extractor_name,
            "num_samples": self.num_samples,
        }
        return settings | self.num_images

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._check_split_sizes("train", "val", "test")

    def on_test_start(self) -> None:
        self._check_split_sizes("train")

    def validation_step(
        self,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self._collect_features("val", batch)

    def test_step(
        self,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self._collect_features("test", batch)

    def predict_step(
        self,
        batch: Sequence[Tensor],
        batch_idx: int,
    ) -> Tensor:
        """Generate images from latents and, for conditional generators, labels."""
        latents, *labels = batch
        return self.generate(Latents(latents, labels[0] if labels else None))

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _check_split_sizes(self, *splits: Split) -> None:
        """Fail before training if a split is too small for the metrics.

        Raises:
            DataError: naming the splits.
        """
        datasets = self.require_data().splits
        sizes = {split: len(datasets[split]) for split in splits}
        small = []
        for split, size in sizes.items():
            if size < MIN_SAMPLES:
                small.append(f"{size} in {split}")
        if small:
            raise DataError(
                f"there are too few images for the metrics, {', '.join(small)}: each split "
                f"requires {MIN_SAMPLES}; type data.holdout_fraction=0.3, or provide more images"
            )

    def _collect_features(
        self,
        split: str,
        batch: Batch,
    ) -> None:
        if batch.samples:
            metrics, indices = self._metrics_of(split), _get_indices(batch)
            metrics["real"].update(indices, self.feature_extractor(batch.images))
            if self.pair.conditional:
                metrics["labels"].update(indices, batch.targets[:, None])

    def _log_metrics(self, split: str) -> None:
        """Compute and log the metrics of a split."""
        if not self.trainer.sanity_checking:
            # In double precision the last digits would depend on the number of threads.
            values = {name: value.float() for name, value in self._compute_metrics(split).items()}
            self.log_dict({f"{split}/{name}": value for name, value in values.items()})
            self.results[split] = values | (self.shown if split == "test" else {})
        for metric in self._metrics_of(split).values():
            metric.reset()

    def _compute_metrics(self, split: str) -> dict[str, Tensor]:
        collectors = self._metrics_of(split)
        self._fill_empty_state(collectors["real"])
        _, real = collectors["real"].compute()
        if len(real) < MIN_SAMPLES:
            raise DataError(
                f"only {len(real)} images of {split} were read, but the metrics require "
                f"{MIN_SAMPLES}"
            )
        self._sync_buffers()
        labels = self._sample_labels(split) if self.pair.conditional else None

        def generate(indices: Sequence[int]) -> Tensor:
            return self.generate(self.sample_latents(indices, labels=_select(labels, indices)))

        fake = self._extract_features(generate)
        values = generative_metrics(real, fake)
        values["diversity"] = diversity(real, fake)
        values |= self._real_baseline(split, real)
        if split == "test":
            values["noise_fid"] = fid(real, self._extract_features(self._make_noise))
            self.shown = {
                "interpolations": self._interpolate(),
                "real_images": self._load_real_images(),
                **self._find_neighbors(fake, labels),
            }
        return values

    def _make_noise(self, indices: Sequence[int]) -> Tensor:
        """Return images of uniform noise, (n, C, H, W) float in [0, 1]."""
        shape = [self.spec.channels, *self.spec.image_size]
        return torch.stack([_draw_seeded(torch.rand, shape, self.seed, i) for i in indices])

    def _real_baseline(
        self,
        split: str,
        real: Tensor,
    ) -> dict[str, Tensor]:
        """Return the metrics of training images, ``real_fid`` and so on."""
        if self.training_features is None:
            _, self.training_features = self._extract_training_features(self.num_samples)
        features, values = self.real_baselines.get(split, (torch.empty(0), {}))
        if not torch.equal(features, real):
            metrics = generative_metrics(real, self.training_features)
            values = {f"real_{name}": value for name, value in metrics.items()}
            self.real_baselines[split] = real, values
        self.num_images = {"real": len(real), "training": len(self.training_features)}
        return values

    def _fill_empty_state(self, collector: FeatureCollector) -> None:
        """Give a rank without data an empty (0, D) state, so that it can join the gather."""
        if not collector.update_called:
            size = (1, self.spec.channels, *self.spec.image_size)
            features = self.feature_extractor(torch.zeros(size, device=self.device))
            collector.update(torch.empty(0, dtype=torch.int64), features[:0])

    def _sync_buffers(self) -> None:
        """Broadcast rank 0's batch-norm buffers, so that all ranks sample the same generator."""
        if self.trainer.world_size > 1:
            for buffer in self.sampling_generator.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def _sample_labels(self, split: str) -> list[int]:
        """Return the label of each sample, with the class frequencies of a split."""
        collector: FeatureCollector = self._metrics_of(split)["labels"]
        if not collector.update_called:
            empty = torch.empty(0, 1, dtype=torch.int64, device=self.device)
            collector.update(torch.empty(0, dtype=torch.int64), empty)
        ordered = collector.compute()[1].flatten().sort().values.tolist()
        positions = [index * len(ordered) // self.num_samples for index in range(self.num_samples)]
        return [ordered[position] for position in positions]

    def _extract_features(self, make: Callable[[Sequence[int]], Tensor]) -> Tensor:
        """Return the features of ``num_samples`` images, distributed over the ranks.

        Args:
            make: returns the images of given indices.

        Returns:
            (num_samples, D).
        """
        collector = FeatureCollector()
        own_indices = range(self.global_rank, self.num_samples, self.trainer.world_size)
        for indices in _split(own_indices, GENERATION_BATCH_SIZE):
            features = self.feature_extractor(make(indices).to(self.device))
            collector.update(torch.tensor(indices), features)
        self._fill_empty_state(collector)
        return collector.compute()[1]

    def _extract_training_features(self, max_samples: int) -> tuple[Tensor, Tensor]:
        """Return indices (n,) and features (n, D) of training images, evenly spaced."""
        data, collector = self.require_data(), FeatureCollector()
        for batch in data.eval_loader("train", max_samples=max_samples):
            data.record_unreadable(batch)
            if batch.samples:
                features = self.feature_extractor(batch.images.to(self.device))
                collector.update(_get_indices(batch), features)
        self._fill_empty_state(collector)
        return collector.compute()

    def _load_real_images(self) -> Tensor:
        """Load as many real training images as there are samples in the preview."""
        data = self.require_data()
        indices = range(min(self.num_preview, len(data.splits["train"])))
        return torch.stack(data.load_images("train", indices, max_samples=self.num_preview))

    def _interpolate(self) -> Tensor:
        """Generate spherical interpolations between pairs of samples (White 2016).

        Nearly all latents are close to a sphere. The label is that of the first sample.

        Returns:
            (pairs, ``INTERPOLATION_STEPS``, C, H, W) uint8.
        """
        ends = self.sample_latents(range(NUM_SAMPLES_SHOWN))
        weights = torch.linspace(0, 1, INTERPOLATION_STEPS, device=self.device)[:, None]
        pairs = zip(ends.latents[::2], ends.latents[1::2], strict=True)
        latents = torch.cat([slerp(first, last, weights) for first, last in pairs])
        labels = ends.labels
        if labels is not None:
            labels = labels[::2].repeat_interleave(INTERPOLATION_STEPS)
        images = self.generate(Latents(latents, labels))
        return images.unflatten(0, (-1, INTERPOLATION_STEPS))

    def _find_neighbors(
        self,
        fake: Tensor,
        labels: Sequence[int] | None,
    ) -> dict[str, Tensor]:
        """Find the training images whose features are nearest to those of evenly spaced samples.

        Returns:
            ``neighbors``, (n, 1 + k, C, H, W) uint8 samples, each followed by its neighbors; and
            ``num_candidates``, the number of training images compared.
        """
        data = self.require_data()
        chosen = [number * len(fake) // NUM_SAMPLES_SHOWN for number in range(NUM_SAMPLES_SHOWN)]
        indices, features = self._extract_training_features(MAX_NEIGHBOR_CANDIDATES)
        count = min(NUM_NEIGHBORS, len(features))
        neighbors = indices[nearest_neighbors(fake[chosen], features, count=count)].tolist()
        samples = self.generate(self.sample_latents(chosen, labels=_select(labels, chosen)))
        rows = []
        for sample, nearest in zip(samples, neighbors, strict=True):
            real = data.load_images("train", nearest, max_samples=MAX_NEIGHBOR_CANDIDATES)
            missing = [torch.zeros_like(sample.cpu())] * (count - len(real))  # unreadable meanwhile
            rows.append(torch.stack([sample.cpu(), *real, *missing]))
        return {"neighbors": torch.stack(rows), "num_candidates": torch.tensor([len(features)])}


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


def _draw_seeded(
    draw: Callable[..., Tensor], shape: Sequence[int], seed: int, index: int
) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(seed, index))
    return draw(shape, generator=generator)


def _get_indices(batch: Batch) -> Tensor:
    return torch.tensor([sample.index for sample in batch.samples])


def _split(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _select(labels: Sequence[int] | None, indices: Sequence[int]) -> list[int] | None:
    if labels is None:
        return None
    return [labels[index] for index in indices]
