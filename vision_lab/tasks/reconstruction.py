"""``task=reconstruct``: images from short codes of them, by an autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from vision_lab.core.arguments import ArgumentError, NonNegative
from vision_lab.core.batch import Batch
from vision_lab.core.protocols import AutoencoderNetwork, Reconstruction
from vision_lab.losses.reconstruction import SSIM_WINDOW, kl_divergence, ssim_window
from vision_lab.metrics.generative import MIN_SAMPLES, FeatureCollector, fid
from vision_lab.metrics.reconstruction import AnomalyAUROC, anomaly_scores
from vision_lab.tasks.features import FeatureTask, get_indices
from vision_lab.tasks.latents import Latents, interpolate
from vision_lab.tasks.showcase import INTERPOLATION_STEPS, NUM_SHOWN
from vision_lab.tasks.supervised import SupervisedTask

ReconstructionLoss = Callable[[Tensor, Tensor], Tensor]
"""Maps logits (N, C, H, W) and images (N, C, H, W) in [0, 1] to a scalar."""


class ReconstructionTask(FeatureTask, SupervisedTask):
    """An autoencoder, plain or variational (Kingma 2013).

    Predictions are reconstructed images, (N, C, H, W) uint8. Metrics are PSNR, computed from the
    mean squared error of all pixels of a split, and the mean SSIM of its images (Wang 2004).
    Samples of a variational autoencoder are compared with the real images of the split by their
    FID, if there is a feature extractor.

    The anomaly score of an image is its mean squared error. If some classes are anomalies, the
    network does not learn from their images, and ``auroc`` is the probability that an anomaly has a
    higher score than another image.

    Args:
        loss: compares reconstructions with images.
        beta: weight of the KL divergence of a variational autoencoder (Higgins 2017); 1 for the
            evidence lower bound. Both terms are divided by the number of pixels.
        anomalies: names of the classes that are anomalies.
        arguments: arguments of ``FeatureTask`` and ``SupervisedTask``; ``network`` is an
            ``AutoencoderNetwork``.

    Raises:
        ArgumentError: if the data has no such class.
    """

    def __init__(
        self,
        *,
        loss: ReconstructionLoss,
        beta: NonNegative = 1.0,
        anomalies: Sequence[str] = (),
        **arguments: Any,
    ) -> None:
        spec = arguments["spec"]
        unknown = [name for name in anomalies if name not in spec.class_names]
        if unknown or (anomalies and spec.target_type != "labels"):
            needed = "[]: the data has no labels"
            if spec.target_type == "labels":
                needed = f"some of its classes, {', '.join(spec.class_names)}"
            raise ArgumentError("anomalies", list(anomalies), needed)
        self.anomalies = tuple(spec.class_names.index(name) for name in anomalies)
        super().__init__(**arguments)
        self.loss = loss
        self.beta = beta
        self.collectors = nn.ModuleDict({name: FeatureCollector() for name in ("val", "test")})
        """Features of the real images of each split."""

    @property
    def autoencoder(self) -> AutoencoderNetwork:
        """The network."""
        return cast(AutoencoderNetwork, self.network)

    @property
    def sampling_generator(self) -> nn.Module:
        return self.autoencoder.decoder

    @property
    def latent_dim(self) -> int:
        return self.autoencoder.latent_dim

    @property
    def uses_class_labels(self) -> bool:
        return bool(self.anomalies)

    @property
    def has_fid(self) -> bool:
        """Whether samples are compared with real images."""
        return self.autoencoder.is_variational and self.feature_extractor is not None

    def render(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        return self.sampling_generator(latents).sigmoid()

    def sample_images(self) -> tuple[Tensor, Tensor | None] | None:
        """Generate images of a variational autoencoder; the codes of others have no prior."""
        return super().sample_images() if self.autoencoder.is_variational else None

    def losses(self, outputs: Reconstruction, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of reconstructions, the KL divergence and their weighted sum."""
        images = batch.images.to(outputs.logits.dtype) / 255
        reconstruction = self.loss(outputs.logits, images)
        if outputs.log_variance is None:
            return {"loss": reconstruction}
        num_pixels = images[0].numel()
        divergence = kl_divergence(outputs.mean, outputs.log_variance) / num_pixels
        loss = reconstruction + self.beta * divergence
        return {"loss": loss, "reconstruction": reconstruction, "kl": divergence}

    def decode(self, outputs: Reconstruction) -> Tensor:
        """Convert outputs to images, (N, C, H, W) uint8."""
        return (outputs.logits.detach().float().sigmoid() * 255).round().to(torch.uint8)

    def metrics(self, split: str) -> MetricCollection:
        """Create the metrics of reconstructions; none for training images."""
        if split == "train":
            return MetricCollection({})
        window = ssim_window(self.spec.image_size)
        metrics: dict[str, Any] = {
            "psnr": PeakSignalNoiseRatio(data_range=1.0),
            "ssim": StructuralSimilarityIndexMeasure(
                data_range=1.0, gaussian_kernel=window == SSIM_WINDOW, kernel_size=window
            ),
        }
        if self.anomalies:
            metrics["auroc"] = AnomalyAUROC()
        return MetricCollection(metrics, compute_groups=False)

    def metric_names(self, split: str) -> set[str]:
        names = super().metric_names(split)
        return names | {"fid"} if split != "train" and self.has_fid else names

    def metric_settings(self) -> dict[str, Any]:
        if not (self.has_fid and self.feature_extractor):
            return {}
        return {
            "feature_extractor": self.feature_extractor.name,
            "num_samples": self.num_samples,
        }

    def update_metrics(self, metrics: MetricCollection, batch: Batch, predictions: Tensor) -> None:
        """Update metrics with images in [0, 1]."""
        # In single precision, the last digits of SSIM depend on how memory is aligned.
        reconstructed, images = predictions.double() / 255, batch.images.double() / 255
        for name, metric in metrics.items():
            if name == "auroc":
                metric.update(anomaly_scores(predictions, batch.images), self.are_anomalies(batch))
            else:
                metric.update(reconstructed, images)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Learn from the images that are no anomalies."""
        if self.anomalies and batch.samples:
            batch = _select(batch, ~self.are_anomalies(batch))
        return super().training_step(batch, batch_idx)

    def are_anomalies(self, batch: Batch) -> Tensor:
        """Return which images of a batch have the class of an anomaly, (N,) bool."""
        classes = torch.tensor(self.anomalies, device=batch.targets.device)
        return torch.isin(batch.targets, classes)

    def _record(self, split: str, losses: Any, predictions: Any, batch: Batch) -> None:
        super()._record(split, losses, predictions, batch)
        if split in self.collectors and self.has_fid:
            collector: Any = self.collectors[split]
            collector.update(get_indices(batch), self.extract(batch.images))

    def further_results(self, split: str) -> dict[str, Tensor]:
        """Compute the FID of samples and, in the test, interpolations between images."""
        if split not in self.collectors:
            return {}
        results = {}
        if self.has_fid:
            collector: Any = self.collectors[split]
            _, real = collector.compute_or_empty(self.empty_features)
            collector.reset()
            if len(real) >= MIN_SAMPLES:
                results["fid"] = self._compute_fid(real)
        if split == "test":
            images = self._load_pairs()
            if images:
                results["interpolations"] = self._interpolate(torch.stack(images))
        return results

    def _compute_fid(self, real: Tensor) -> Tensor:
        self.sync_buffers()
        fake = self.extract_samples(lambda indices: self.generate(self.sample_latents(indices)))
        return fid(real, fake).float()  # in double precision its last digits depend on threads

    def _load_pairs(self) -> list[Tensor]:
        """Load an even number of training images, (C, H, W) uint8, without unreadable ones."""
        data = self.require_data()
        count = min(NUM_SHOWN, len(data.splits["train"]))
        images = data.load_images("train", range(count), max_samples=NUM_SHOWN)
        return images[: len(images) // 2 * 2]

    def _interpolate(self, images: Tensor) -> Tensor:
        """Interpolate between the codes of pairs of images.

        Args:
            images: (2 n, C, H, W) uint8.

        Returns:
            (n, ``INTERPOLATION_STEPS``, C, H, W) uint8.
        """
        codes = self(images.to(self.device)).mean
        shown = self.generate(Latents(interpolate(codes, INTERPOLATION_STEPS), None))
        return shown.unflatten(0, (-1, INTERPOLATION_STEPS))


def _select(batch: Batch, chosen: Tensor) -> Batch:
    """Select images of a batch.

    Args:
        batch: the batch.
        chosen: (N,) bool.
    """
    samples = [sample for sample, is_chosen in zip(batch.samples, chosen, strict=True) if is_chosen]
    return Batch(batch.images[chosen], batch.targets[chosen], samples, batch.unreadable)
