"""What every task is: a network with its normalisation, its optimiser and schedule, seeded at each step.

``Task`` has all that modes and callbacks ask of one, so that none of them asks which task it has; ``Supervised`` is a
task with targets and one loss.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torchmetrics import MeanMetric, Metric, MetricCollection

from vision_lab.core.batch import Batch
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.spec import DataSpec
from vision_lab.training.lr_schedules import ReduceOnPlateau, Schedule
from vision_lab.training.seeding import seed_all
from vision_lab.viz.images import grid

MonitorMode = Literal["min", "max"]


class Task(pl.LightningModule, ABC):
    """A network that learns something.

    What is measured while training lies in ``split_metrics["on_train"]``, and goes with a checkpoint.

    Args:
        network: what learns.
        spec: the data it is for; its mean and std are subtracted and divided by here, and nowhere else.
        optimizer: makes the optimiser of the parameters that are to be trained; keywords win over the config's.
        schedule: the learning rate's factor by progress, or by plateau.
        monitor: the metric that says which checkpoint is best.
        goal: whether more of it is better ("max") or less ("min").
        seed: with epoch, batch and rank, decides a step's random numbers (dropout and its kin).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        network: nn.Module,
        spec: DataSpec,
        optimizer: Callable[..., Optimizer],
        schedule: Schedule | ReduceOnPlateau,
        monitor: str,
        monitor_mode: MonitorMode,
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.optimizer = optimizer
        self.schedule = schedule
        self.monitor = monitor
        self.monitor_mode = monitor_mode
        self.seed = seed
        # Not persistent: a checkpoint of the network holds the published keys and no others.
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1), persistent=False)
        self.split_metrics = nn.ModuleDict()
        self.results: dict[str, dict[str, Tensor]] = {}
        """split: all that its metrics came to, after its last epoch."""

    def total_steps(self) -> float:
        """Steps of a training by Lightning's count.

        Raises:
            ConfigurationError: where it has no end, and so no progress.
        """
        if self.trainer.estimated_stepping_batches == math.inf:
            raise ConfigurationError(
                "a schedule by progress needs an end: type trainer.max_epochs=..."
            )
        return self.trainer.estimated_stepping_batches

    def make_lr_scheduler(self, optimizer: Optimizer, *, steps: int) -> LambdaLR:
        """The rate of each of so many steps."""
        schedule = self.schedule
        assert not isinstance(schedule, ReduceOnPlateau)
        last = max(steps - 1, 1)
        return LambdaLR(optimizer, lambda step: schedule(min(step / last, 1.0)))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed this step."""
        seed_all(self.seed, self.current_epoch, batch_idx, self.global_rank)

    @property
    def step_is_complete(self) -> bool:
        """Whether the batch that has just ended completes a step, for tasks that make their steps themselves."""
        return True

    def network_state_dict(self) -> dict[str, Tensor]:
        """What is kept of a training as ``model.pth``."""
        return self.network.state_dict()

    def load_network_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take it up again."""
        self.network.load_state_dict(state)

    def flop_inputs(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """What is run for one picture, and the inputs on the meta device: what a picture costs."""
        return self.network, (
            torch.empty(1, self.spec.channels, *self.spec.image_size, device="meta"),
        )

    def learning_rates(self) -> dict[str, float]:
        """name: the learning rate of each optimiser, as it is now."""
        return {"lr": self.trainer.optimizers[0].param_groups[0]["lr"]}

    @property
    def uses_class_labels(self) -> bool:
        """Whether it learns from the classes of pictures, so that other data must have the same."""
        return True

    def measured_names(self, split: str) -> set[str]:
        """Return the names of the scalars that a split is measured by, without the split."""
        return set(dict(self.split_metrics[f"on_{split}"].named_children()))

    def tensorboard_charts(self) -> Mapping[str, Sequence[str]]:
        """name: the curves that TensorBoard shows in one chart."""
        names = dict.fromkeys(["loss", self.monitor.rpartition("/")[2]])
        return {name: [f"train/{name}", f"val/{name}"] for name in names}

    def metric_settings(self) -> dict[str, Any]:
        """What has to be known to read its numbers, besides the data."""
        return {}

    def scalar_metrics(self, split: str) -> dict[str, float]:
        """What a split's metrics came to, without those that are no single number."""
        return {
            name: value.item()
            for name, value in sorted(self.results[split].items())
            if value.ndim == 0
        }

    def per_class(self, split: str) -> dict[str, dict[str, float]]:
        """class: what was measured of it on a split."""
        return {}

    def draw_predictions(self, batch: Batch, predictions: Any) -> list[Tensor]:
        """One picture (3, h, w) uint8 for each of the batch, with its prediction and, where known, its target."""
        return []

    def contact_sheet(self, pictures: Sequence[Tensor]) -> Tensor:
        """Drawn pictures, at least one, as one picture (3, H, W) uint8, with what is needed to read them."""
        return grid(pictures)

    def figures(self, split: str) -> Mapping[str, Tensor]:
        """Pictures (3, h, w) uint8 of a whole split, after it."""
        return {}

    def sample_grid(self) -> Tensor | None:
        """What it makes of itself, without any data, as one picture (3, H, W) uint8; None where that is nothing."""
        return None

    def export(self, split: str, paths: Sequence[str]) -> Mapping[str, Any]:
        """name: what a whole split ("predict" too) came to, for other programs, as JSON can hold it.

        Args:
            split: which.
            paths: of its pictures; empty where they have none.
        """
        return {}

    def enable_flip_tta(self) -> None:
        """From now on look at each picture and its mirror image, and take the mean.

        Raises:
            ConfigurationError: where the task has no such mean.
        """
        raise ConfigurationError(TTA_UNSUPPORTED)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the running epoch has measured so far, in every process."""
        own = [_state(metric) for metric in self._metrics("train")]
        checkpoint["measured"] = [own]
        if self.trainer.world_size > 1:
            checkpoint["measured"] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(checkpoint["measured"], own)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it up again."""
        for metric, state in zip(
            self._metrics("train"), checkpoint["measured"][self.global_rank], strict=True
        ):
            for name, value in state.items():
                setattr(metric, name, value)

    def _metrics(self, split: str) -> list[Metric]:
        return [
            module
            for module in self.split_metrics[f"on_{split}"].modules()
            if isinstance(module, Metric)
        ]


TTA_UNSUPPORTED = "mode.tta=flip: this task does not know how to take a mean: type mode.tta=null"


class SplitMetrics(nn.Module):
    """What is measured on one split: modules, so that they follow the task to its device."""

    loss: MeanMetric
    metrics: MetricCollection

    def __init__(self, scores: MetricCollection) -> None:
        super().__init__()
        self.loss = MeanMetric()
        self.metrics = scores


class SupervisedTask(Task):
    """A task with targets: one loss, metrics accumulated over a whole split.

    Its network makes of (N, C, H, W) normalised pictures whatever the head says. A concrete task says what its losses,
    predictions, metrics and pictures are.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.flip = False
        """Whether an evaluation looks at each picture and its mirror image, and takes the mean."""
        self.split_metrics = nn.ModuleDict(
            {f"on_{split}": SplitMetrics(self.metrics(split)) for split in ("train", "val", "test")}
        )

    def forward(self, images: Tensor) -> Any:
        """(N, C, H, W) uint8, or float in [0, 1] -> the network's outputs."""
        if images.dtype == torch.uint8:
            # In place: new memory for each step of the sum would cost more than the sum.
            return self.network(images.to(self.mean.dtype).div_(255).sub_(self.mean).div_(self.std))
        return self.network((images.to(self.mean.dtype) - self.mean) / self.std)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser with a rate for each step, or after each validation for a plateau."""
        parameters = [
            parameter for parameter in self.network.parameters() if parameter.requires_grad
        ]
        if not parameters:
            raise ConfigurationError(
                "model.freeze leaves nothing to train: type model.freeze=backbone or null"
            )
        optimizer = self.optimizer(parameters)
        schedule = self.schedule
        if isinstance(schedule, ReduceOnPlateau):
            plateau = ReduceLROnPlateau(
                optimizer,
                mode=self.monitor_mode,
                factor=schedule.factor,
                patience=schedule.patience,
                threshold=schedule.threshold,
                threshold_mode=schedule.threshold_mode,
            )
            every = self.trainer.check_val_every_n_epoch or 1
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": plateau, "monitor": self.monitor, "frequency": every},
            }
        by_step = self.make_lr_scheduler(optimizer, steps=int(self.total_steps()))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": by_step, "interval": "step"}}

    @abstractmethod
    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Scalars; "loss" is the one to minimise."""

    @abstractmethod
    def decode(self, outputs: Any) -> Any:
        """Predictions as the metrics and a person take them."""

    def average_flipped(self, outputs: Any, mirrored: Any) -> Any:
        """What the network says of pictures and of their mirror images, as outputs again.

        Raises:
            ConfigurationError: where the task has no such mean.
        """
        raise ConfigurationError(TTA_UNSUPPORTED)

    def enable_flip_tta(self) -> None:
        self.flip = True

    def enable_tiling(self, overlap: float) -> None:
        """From now on predict on whole pictures, tile by tile.

        Args:
            overlap: the part of a tile's side that it shares with the next.

        Raises:
            ConfigurationError: where the task says one thing of a whole picture.
        """
        raise ConfigurationError(
            "mode.tiles=true is for tasks that say something of each pixel (task=segment)"
        )

    @abstractmethod
    def metrics(self, split: str) -> MetricCollection:
        """What is measured on a split; scalars are logged under their names.

        Called while the task is made: its spec is known, what a concrete task adds is not.
        """

    @abstractmethod
    def draw_predictions(self, batch: Batch, predictions: Any) -> list[Tensor]:
        """One picture (3, h, w) uint8 for each of the batch, with its prediction and, where known, its target."""

    @abstractmethod
    def table_rows(self, batch: Batch, predictions: Any) -> list[dict[str, str | float]]:
        """One table row for each picture; the same columns in each."""

    @abstractmethod
    def save_predictions(
        self,
        batch: Batch,
        predictions: Any,
        folder: Path,
        *,
        names: Sequence[str],
        pictures: Iterable[Tensor],
    ) -> None:
        """Write predictions that are more than a table row, one file a picture.

        Args:
            batch: what was looked at.
            predictions: what was said of it.
            folder: to write into.
            names: of each picture's files, without their ends.
            pictures: (C, h, w) uint8 as the files have them, each read when it is asked for.
        """

    def measured_names(self, split: str) -> set[str]:
        scores = self._meters(split).metrics
        return {"loss"}.union(
            *(getattr(metric, "names", (name,)) for name, metric in scores.items())
        )

    def update_metrics(self, scores: MetricCollection, batch: Batch, predictions: Any) -> None:
        """Let the metrics see a batch."""
        scores.update(predictions, batch.targets)

    def collect_examples(self, split: str, batch: Batch, predictions: Any) -> None:
        """See a batch of an evaluation, for the figures."""

    def reset_examples(self, split: str) -> None:
        """Begin a split anew: what was observed of it before is not of this epoch."""

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        if not batch.samples:  # none of its files could be read
            return None if self.trainer.world_size == 1 else self._zero_loss()
        outputs = self(batch.images)
        losses = self.losses(outputs, batch)
        # What is not measured while training need not be decoded, which of detectors takes long.
        predictions = self.decode(outputs) if len(self._meters("train").metrics) else None
        self._record("train", losses, predictions, batch)
        return losses

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        return self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Any:
        return self._evaluate("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Any:
        if not batch.samples:
            return None
        return self.decode(self.forward_tta(batch.images))

    def forward_tta(self, images: Tensor) -> Any:
        """The network's outputs for an evaluation."""
        outputs = self(images)
        return self.average_flipped(outputs, self(images.flip(-1))) if self.flip else outputs

    def on_validation_batch_start(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Seed the losses that draw samples (Faster R-CNN's), so that a split comes to the same each time."""
        seed_all(self.seed, 0, batch_idx, self.global_rank)

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Likewise."""
        seed_all(self.seed, 0, batch_idx, self.global_rank)

    def on_validation_epoch_start(self) -> None:
        self.reset_examples("val")

    def on_test_epoch_start(self) -> None:
        self.reset_examples("test")

    def on_train_epoch_end(self) -> None:
        self._log_metrics("train")

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _zero_loss(self) -> dict[str, Tensor]:
        """A loss without a slope: processes exchange the slopes of every step, so that none may leave one out."""
        return {
            "loss": torch.stack(
                [parameter.sum() * 0 for parameter in self.network.parameters()]
            ).sum()
        }

    def _evaluate(self, split: str, batch: Batch) -> Any:
        if not batch.samples:
            return None
        outputs = self.forward_tta(batch.images)
        predictions = self.decode(outputs)
        self._record(split, self.losses(outputs, batch), predictions, batch)
        if not self.trainer.sanity_checking:
            self.collect_examples(split, batch, predictions)
        return predictions

    def _record(
        self, split: str, losses: Mapping[str, Tensor], predictions: Any, batch: Batch
    ) -> None:
        meters = self._meters(split)
        meters.loss.update(losses["loss"].detach(), weight=len(batch.samples))
        if len(meters.metrics):
            self.update_metrics(meters.metrics, batch, predictions)

    def _meters(self, split: str) -> SplitMetrics:
        meters = self.split_metrics[f"on_{split}"]
        assert isinstance(meters, SplitMetrics)
        return meters

    def _log_metrics(self, split: str) -> None:
        meters = self._meters(split)
        values = {"loss": meters.loss.compute(), **meters.metrics.compute()}
        meters.loss.reset()
        meters.metrics.reset()
        if self.trainer.sanity_checking:
            return
        self.results[split] = values
        self.log_dict(
            {f"{split}/{name}": value for name, value in values.items() if value.ndim == 0}
        )


def main_logits(outputs: Any) -> Tensor:
    """Of a network that may return a tuple, main first and auxiliary after."""
    main: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return main


def average_logits(one: Tensor, other: Tensor) -> Tensor:
    """Logits, with classes in the second dimension, whose probabilities are the mean of both's."""
    both = [logits.float().log_softmax(dim=1) for logits in (one, other)]
    return torch.stack(both).logsumexp(dim=0) - math.log(2)


def _state(metric: Metric) -> dict[str, Any]:
    """What a metric has seen so far, on the CPU; by the names of its attributes."""
    values: dict[str, Any] = {
        name: [item.cpu() for item in value] if isinstance(value, list) else value.cpu()
        for name, value in metric.metric_state.items()
    }
    return {
        **values,
        "_update_count": metric._update_count,
    }  # without which it would warn that it saw nothing
