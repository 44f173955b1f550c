"""``task=generate``: pictures like those of the data, made of noise, measured and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from vision_lab.core.arguments import Count, Range
from vision_lab.core.batch import Batch
from vision_lab.core.errors import DataError
from vision_lab.core.spec import Split
from vision_lab.metrics.generative import (
    DISTANCES,
    MIN_SAMPLES,
    FeatureCollector,
    diversity,
    fid,
    generative_metrics,
    nearest,
)
from vision_lab.tasks.gan import GanTask
from vision_lab.training.seeding import derive_seed
from vision_lab.viz.images import grid, side_by_side, tiled

GRID_COLUMNS = 8
"""Pictures side by side."""

INTERPOLATION_STEPS = 10
"""Pictures on the way from one sample to another, both included."""

NUM_NEIGHBORS_DRAWN = 3
"""Training pictures that are drawn beside a sample."""

MAX_NEIGHBOR_CANDIDATES = 10_000
"""Training pictures, at most and evenly spaced, among which the nearest to samples are looked for."""

GENERATION_BATCH_SIZE = 100
"""Pictures that are made together."""


class Latents(NamedTuple):
    """What pictures are made of."""

    latents: Tensor
    """(N, latent) standard normal."""
    labels: Tensor | None
    """(N,) int64; None where the pair takes no classes."""


class GenerationTask(GanTask):
    """A pair of networks whose samples are held against real pictures.

    Measured on a split are FID, KID, precision and recall of ``samples`` samples; their diversity; and, as ``real_fid``
    and so on, what as many real training pictures get (or all of them, if they are fewer): how good it can be. After a
    test also ``noise_fid``, what uniform noise gets.

    Args:
        features: (N, C, H, W) uint8 pictures, or floats in [0, 1] -> (N, D), in which pictures are measured.
        features_name: what they are called.
        samples: pictures that are made to be measured.
        shown: of these, that are drawn after each epoch.
        arguments: what every adversarial task takes.

    Raises:
        ConfigurationError: where a setting is out of range.
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
            self.split_metrics[f"on_{split}"] = nn.ModuleDict(
                {"real": FeatureCollector(), "labels": FeatureCollector()}
            )
        self.training_points: Tensor | None = None
        """(n, D) features of ``samples`` training pictures, evenly spaced."""
        self.real_measures: dict[str, tuple[Tensor, dict[str, Tensor]]] = {}
        """split: its points, and what training pictures get there, the same in each epoch."""
        self.counts: dict[str, int] = {}
        self.drawn: dict[str, Tensor] = {}

    def measured_names(self, split: str) -> set[str]:
        if split == "train":
            return super().measured_names(split)
        return {*DISTANCES, *(f"real_{name}" for name in DISTANCES), "diversity"}

    def generate(self, noise: Latents) -> Tensor:
        """(N, C, H, W) uint8 pictures, by the averaged generator in evaluation mode."""
        training = self.sampling_generator.training
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            made = self.sampling_generator.eval()(noise.latents.to(self.mean.dtype), noise.labels)
        self.sampling_generator.train(training)
        return ((made * self.std + self.mean).clamp(0, 1) * 255).round().to(torch.uint8)

    def sample_latents(
        self, places: Sequence[int], *, labels: Sequence[int] | None = None
    ) -> Latents:
        """What the samples at some places are made of, each a function of the seed and its place.

        Args:
            places: from 0.
            labels: the class of each; None: the classes in turn.
        """
        latents = [
            _seeded_draw(torch.randn, [self.pair.latent_dim], self.seed, place) for place in places
        ]
        if not self.pair.conditional:
            return Latents(torch.stack(latents).to(self.device), None)
        chosen = (
            [place % self.spec.num_classes for place in places] if labels is None else list(labels)
        )
        return Latents(
            torch.stack(latents).to(self.device), torch.tensor(chosen, device=self.device)
        )

    def sample_grid(self) -> Tensor:
        """The first samples as one picture, (3, H, W) uint8: of the same noise each time, classes in columns."""
        classes = self.spec.num_classes if self.pair.conditional else GRID_COLUMNS
        return tiled(
            self.generate(self.sample_latents(range(self.num_preview))),
            columns=classes if classes <= 2 * GRID_COLUMNS else GRID_COLUMNS,
        )

    def flop_inputs(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """A pass of the generator."""
        latents = torch.empty(1, self.pair.latent_dim, device="meta")
        labels = torch.zeros(1, dtype=torch.int64, device="meta")
        return self.pair.generator, (latents, labels) if self.pair.conditional else (latents,)

    def tensorboard_charts(self) -> Mapping[str, Sequence[str]]:
        """Besides the losses and scores, what samples get and what real pictures get."""
        names = ("fid", "kid", "precision", "recall")
        return {
            **super().tensorboard_charts(),
            **{name: [f"val/{name}", f"val/real_{name}"] for name in names},
        }

    def metric_settings(self) -> dict[str, Any]:
        """The features, how many samples, and how many real pictures of the split and of training."""
        return {"features": self.feature_extractor_name, "samples": self.num_samples, **self.counts}

    def figures(self, split: str) -> Mapping[str, Tensor]:
        """After the test: ways between samples, samples beside the nearest training pictures, and real ones."""
        return self.drawn if split == "test" else {}

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._check_sizes("train", "val", "test")

    def on_test_start(self) -> None:
        self._check_sizes("train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._see("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._see("test", batch)

    def predict_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Pictures of latents and, where the pair takes classes, labels."""
        latents, *labels = batch
        return self.generate(Latents(latents, labels[0] if labels else None))

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _check_sizes(self, *splits: Split) -> None:
        """Before hours are spent."""
        found = self.trainer.datamodule.splits  # type: ignore[attr-defined]
        few = [
            f"{len(found[split])} in {split}" for split in splits if len(found[split]) < MIN_SAMPLES
        ]
        if few:
            raise DataError(
                f"there are too few pictures to measure by, {', '.join(few)}: there must be {MIN_SAMPLES} in each split; "
                "type data.holdout_fraction=0.3, or give more"
            )

    def _see(self, split: str, batch: Batch) -> None:
        """Look at real pictures."""
        if batch.samples:
            meters, places = self._metrics_of(split), _places(batch)
            meters["real"].update(places, self.feature_extractor(batch.images))
            if self.pair.conditional:
                meters["labels"].update(places, batch.targets[:, None])

    def _log_metrics(self, split: str) -> None:
        """Hold samples against the pictures that were seen of a split."""
        if not self.trainer.sanity_checking:
            # In double precision the last digits hang on how many threads there are.
            self.results[split] = {
                name: value.float() for name, value in self._compute_metrics(split).items()
            }
            self.log_dict({f"{split}/{name}": value for name, value in self.results[split].items()})
        for meter in self._metrics_of(split).values():
            meter.reset()

    def _compute_metrics(self, split: str) -> dict[str, Tensor]:
        meters = self._metrics_of(split)
        self._fill_empty_state(meters["real"])
        _, real = meters["real"].compute()
        if len(real) < MIN_SAMPLES:
            raise DataError(
                f"only {len(real)} pictures of {split} were seen, too few to measure by: {MIN_SAMPLES} at least"
            )
        self._sync_buffers()
        labels = self._sample_labels(self._seen_labels(split)) if self.pair.conditional else None
        made = self._sample_features(
            lambda places: self.generate(
                self.sample_latents(places, labels=_select(labels, places))
            )
        )
        values = (
            generative_metrics(real, made)
            | {"diversity": diversity(real, made)}
            | self._real_baseline(split, real)
        )
        if split == "test":
            shape = [self.spec.channels, *self.spec.image_size]
            noise = self._sample_features(
                lambda places: torch.stack(
                    [_seeded_draw(torch.rand, shape, self.seed, place) for place in places]
                )
            )
            values["noise_fid"] = fid(real, noise)
            self.drawn = {
                "interpolation": self._interpolated(),
                "neighbours": self._neighbours(made, labels),
                "real": self._real_gallery(),
            }
        return values

    def _real_baseline(self, split: str, real: Tensor) -> dict[str, Tensor]:
        """What training pictures get, as ``real_fid`` and so on."""
        if self.training_points is None:
            _, self.training_points = self._training(most=self.num_samples)
        seen, values = self.real_measures.get(split, (torch.empty(0), {}))
        if not torch.equal(seen, real):
            found = generative_metrics(real, self.training_points)
            values = {f"real_{name}": value for name, value in found.items()}
            self.real_measures[split] = real, values
        self.counts = {"real": len(real), "training": len(self.training_points)}
        return values

    def _fill_empty_state(self, points: FeatureCollector) -> None:
        """A process that has seen nothing has something to exchange all the same: rows of which there are none."""
        if not points.update_called:
            nothing = torch.zeros(1, self.spec.channels, *self.spec.image_size, device=self.device)
            points.update(torch.empty(0, dtype=torch.int64), self.feature_extractor(nothing)[:0])

    def _seen_labels(self, split: str) -> Tensor:
        labels: FeatureCollector = self._metrics_of(split)["labels"]
        if not labels.update_called:
            labels.update(
                torch.empty(0, dtype=torch.int64),
                torch.empty(0, 1, dtype=torch.int64, device=self.device),
            )
        return labels.compute()[1].flatten()

    def _sync_buffers(self) -> None:
        """Let all processes sample by the same statistics of batch norm: each has seen batches of its own."""
        if self.trainer.world_size > 1:
            for buffer in self.sampling_generator.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def _sample_labels(self, labels: Tensor) -> list[int]:
        """The class of each sample: as many of each as there are among so many real pictures, in parts."""
        ordered = labels.sort().values.tolist()
        return [
            ordered[place * len(ordered) // self.num_samples] for place in range(self.num_samples)
        ]

    def _sample_features(self, make: Callable[[Sequence[int]], Tensor]) -> Tensor:
        """(samples, D) features of what is made at each place, shared among the processes."""
        points = FeatureCollector()
        for places in _chunks(range(self.global_rank, self.num_samples, self.trainer.world_size)):
            points.update(
                torch.tensor(places), self.feature_extractor(make(places).to(self.device))
            )
        self._fill_empty_state(points)
        return points.compute()[1]

    def _training(self, *, most: int) -> tuple[Tensor, Tensor]:
        """Places (n,) and features (n, D) of at most so many training pictures, evenly spaced."""
        data, points = self.trainer.datamodule, FeatureCollector()  # type: ignore[attr-defined]
        for batch in data.eval_loader("train", most=most):
            data.note_unreadable(batch)
            if batch.samples:
                points.update(_places(batch), self.feature_extractor(batch.images.to(self.device)))
        self._fill_empty_state(points)
        return points.compute()

    def _real_gallery(self) -> Tensor:
        """As many real training pictures as there are samples in the gallery."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        places = range(min(self.num_preview, len(data.splits["train"])))
        return tiled(
            torch.stack(data.image_dir("train", places, most=self.num_preview)),
            columns=GRID_COLUMNS,
        )

    def _interpolated(self) -> Tensor:
        """Along the sphere on which latents lie nearly all (White 2016); the class is that of the first."""
        ends = self.sample_latents(range(GRID_COLUMNS))
        ways = [
            slerp(
                first, last, torch.linspace(0, 1, INTERPOLATION_STEPS, device=self.device)[:, None]
            )
            for first, last in zip(ends.latents[::2], ends.latents[1::2], strict=True)
        ]
        labels = (
            None if ends.labels is None else ends.labels[::2].repeat_interleave(INTERPOLATION_STEPS)
        )
        return tiled(self.generate(Latents(torch.cat(ways), labels)), columns=INTERPOLATION_STEPS)

    def _neighbours(self, made: Tensor, labels: Sequence[int] | None) -> Tensor:
        """Evenly spaced samples, each beside the training pictures whose features are nearest to its own."""
        chosen = [place * len(made) // GRID_COLUMNS for place in range(GRID_COLUMNS)]
        places, points = self._training(most=MAX_NEIGHBOR_CANDIDATES)
        found = places[nearest(made[chosen], points, count=min(NUM_NEIGHBORS_DRAWN, len(points)))]
        pictures = self.generate(self.sample_latents(chosen, labels=_select(labels, chosen)))
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        caption = f"made, and the nearest of {len(points):,} real ones"
        return grid(
            [
                side_by_side(
                    [picture, *data.image_dir("train", neighbours, most=MAX_NEIGHBOR_CANDIDATES)],
                    caption,
                )
                for picture, neighbours in zip(pictures, found.tolist(), strict=True)
            ],
            columns=2,
            gap=16,
        )


def slerp(first: Tensor, last: Tensor, share: Tensor) -> Tensor:
    """Vectors (n, D) from one (D,) to another at (n, 1) shares of the angle between them."""
    angle = torch.arccos(
        torch.nn.functional.cosine_similarity(first, last, dim=0).clamp(-0.9999, 0.9999)
    )
    return (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * last) / torch.sin(
        angle
    )


def _seeded_draw(
    draw: Callable[..., Tensor], shape: Sequence[int], seed: int, place: int
) -> Tensor:
    return draw(shape, generator=torch.Generator().manual_seed(derive_seed(seed, place)))


def _places(batch: Batch) -> Tensor:
    return torch.tensor([sample.index for sample in batch.samples])


def _chunks(places: Sequence[int]) -> Iterator[Sequence[int]]:
    return (
        places[start : start + GENERATION_BATCH_SIZE]
        for start in range(0, len(places), GENERATION_BATCH_SIZE)
    )


def _select(labels: Sequence[int] | None, places: Sequence[int]) -> list[int] | None:
    return None if labels is None else [labels[place] for place in places]
