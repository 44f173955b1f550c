"""``task=generate``: images like those of the data, generated from noise, measured and drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.batch import Batch
from vision_lab.core.errors import DataError
from vision_lab.core.spec import Split
from vision_lab.metrics.generative import (
    GENERATIVE_METRICS,
    MIN_SAMPLES,
    FeatureCollector,
    diversity,
    fid,
)
from vision_lab.tasks import showcase
from vision_lab.tasks.features import FeatureTask, get_indices
from vision_lab.tasks.gan import GanTask
from vision_lab.tasks.latents import Latents, draw_each

FeatureMetric = Callable[[Tensor, Tensor], Tensor]
"""Maps features (n, D) of real images and (m, D) of generated ones to a scalar."""


class GenerationTask(GanTask, FeatureTask):
    """A GAN whose samples are compared with real images.

    Metrics of a split are FID, KID, precision and recall of ``num_samples`` samples and their
    diversity. ``real_fid`` and so on are those of as many real training images (or of all of them),
    as a reference for the best possible values. The test also measures ``noise_fid``, the FID of
    uniform noise.

    Args:
        metrics: further functions of features of real and of generated images, by name.
        arguments: arguments of ``GanTask`` and ``FeatureTask``.

    Raises:
        ArgumentError: if a metric has the name of another one.
    """

    generates_images = True

    def __init__(
        self,
        *,
        metrics: Mapping[str, FeatureMetric] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        taken = sorted({*GENERATIVE_METRICS, "diversity"} & set(metrics or {}))
        if taken:
            raise ArgumentError("metrics", taken, "other names: these metrics exist already")
        self.added_metrics = tuple(metrics or ())
        self.feature_metrics: dict[str, FeatureMetric] = {**GENERATIVE_METRICS, **(metrics or {})}
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
        names = {*self.feature_metrics, "diversity"}
        return names | {f"real_{name}" for name in self.feature_metrics}

    def metric_settings(self) -> dict[str, Any]:
        """Return the feature extractor and the numbers of generated and real images."""
        settings = {
            "feature_extractor": self.feature_extractor.name if self.feature_extractor else None,
            "num_samples": self.num_samples,
        }
        return settings | self.num_images

    def flop_inputs(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        latents = torch.empty(1, self.latent_dim, device="meta")
        if not self.conditional:
            return self.pair.generator, (latents,)
        labels = torch.zeros(1, dtype=torch.int64, device="meta")
        return self.pair.generator, (latents, labels)

    def predict_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Generate images from latents and, for conditional generators, labels."""
        latents, *labels = batch
        return self.generate(Latents(latents, labels[0] if labels else None))

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._check_split_sizes("train", "val", "test")

    def on_test_start(self) -> None:
        self._check_split_sizes("train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._collect_features("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._collect_features("test", batch)

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
        small = []
        for split in splits:
            size = len(datasets[split])
            if size < MIN_SAMPLES:
                small.append(f"{size} in {split}")
        if small:
            raise DataError(
                f"there are too few images for the metrics, {', '.join(small)}: each split "
                f"requires {MIN_SAMPLES}; provide more images, or hold out a larger fraction of "
                "them for validation and test"
            )

    def _collect_features(self, split: str, batch: Batch) -> None:
        if batch.samples:
            metrics, indices = self.metrics_of(split), get_indices(batch)
            metrics["real"].update(indices, self.extract(batch.images))
            if self.conditional:
                metrics["labels"].update(indices, batch.targets[:, None])

    def _log_metrics(self, split: str) -> None:
        """Compute and log the metrics of a split."""
        if not self.trainer.sanity_checking:
            # In double precision the last digits would depend on the number of threads.
            values = {name: value.float() for name, value in self._compute_metrics(split).items()}
            self.log_dict({f"{split}/{name}": value for name, value in values.items()})
            self.results[split] = values | (self.shown if split == "test" else {})
        for metric in self.metrics_of(split).values():
            metric.reset()

    def _compute_metrics(self, split: str) -> dict[str, Tensor]:
        collectors = self.metrics_of(split)
        _, real = collectors["real"].compute_or_empty(self.empty_features)
        if len(real) < MIN_SAMPLES:
            raise DataError(
                f"only {len(real)} images of {split} were read, but the metrics require "
                f"{MIN_SAMPLES}"
            )
        self.sync_buffers()
        labels = self._sample_labels(split) if self.conditional else None
        fake = self.extract_samples(lambda indices: self._generate(indices, labels))
        values = self._measure(real, fake)
        values["diversity"] = diversity(real, fake)
        values |= self._real_baseline(split, real)
        if split == "test":
            values["noise_fid"] = fid(real, self.extract_samples(self._make_noise))
            self.shown = {
                "interpolations": showcase.generate_interpolations(self),
                "real_images": showcase.load_real_images(self),
                **showcase.find_neighbors(self, fake, labels),
            }
        return values

    def _measure(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return {name: metric(real, fake) for name, metric in self.feature_metrics.items()}

    def _generate(self, indices: Sequence[int], labels: Sequence[int] | None) -> Tensor:
        own_labels = None if labels is None else [labels[index] for index in indices]
        return self.generate(self.sample_latents(indices, labels=own_labels))

    def _make_noise(self, indices: Sequence[int]) -> Tensor:
        """Return images of uniform noise, (n, C, H, W) float in [0, 1]."""
        shape = [self.spec.channels, *self.spec.image_size]
        return draw_each(torch.rand, indices, shape, seed=self.seed)

    def _real_baseline(self, split: str, real: Tensor) -> dict[str, Tensor]:
        """Return the metrics of training images, ``real_fid`` and so on."""
        if self.training_features is None:
            _, self.training_features = self.extract_training_features(self.num_samples)
        features, values = self.real_baselines.get(split, (torch.empty(0), {}))
        if not torch.equal(features, real):
            metrics = self._measure(real, self.training_features)
            values = {f"real_{name}": value for name, value in metrics.items()}
            self.real_baselines[split] = real, values
        self.num_images = {"real": len(real), "training": len(self.training_features)}
        return values

    def _sample_labels(self, split: str) -> list[int]:
        """Return the label of each sample, with the class frequencies of a split."""
        _, labels = self.metrics_of(split)["labels"].compute_or_empty(self._empty_labels)
        ordered = labels.flatten().sort().values.tolist()
        positions = [index * len(ordered) // self.num_samples for index in range(self.num_samples)]
        return [ordered[position] for position in positions]

    def _empty_labels(self) -> Tensor:
        return torch.empty(0, 1, dtype=torch.int64, device=self.device)
