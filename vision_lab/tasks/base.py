"""Base classes of tasks: a network with its normalization, optimizer, schedule and metrics.

``Task`` has everything that modes and callbacks use, so that none of them needs to know which task
it has. ``SupervisedTask`` is a task with targets and one loss.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
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
from vision_lab.training.lr_schedules import Schedule
from vision_lab.training.seeding import seed_all
from vision_lab.viz.images import grid

MonitorMode = Literal["min", "max"]

PlateauFactory = Callable[..., ReduceLROnPlateau]
"""A partial of ``ReduceLROnPlateau``, without the optimizer."""

TTA_UNSUPPORTED = "mode.tta=flip: this task cannot average predictions: type mode.tta=null"


class Task(pl.LightningModule, ABC):
    """A network that is trained and evaluated.

    The metrics of each split are in ``split_metrics["on_<split>"]``; those of training are part of
    checkpoints.

    Args:
        network: the network to train.
        spec: spec of the data; images are normalized here by its mean and std, and nowhere else.
        optimizer: creates an optimizer for given parameters; keyword arguments override the
            config's settings.
        schedule: maps training progress to a factor of the learning rate; or a partial of
            ``ReduceLROnPlateau``.
        monitor: name of the metric that determines the best checkpoint.
        monitor_mode: whether its best value is the largest ("max") or the smallest ("min").
        seed: seed of each step's random numbers (such as dropout), with epoch, batch and rank.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        network: nn.Module,
        spec: DataSpec,
        optimizer: Callable[..., Optimizer],
        schedule: Schedule | PlateauFactory,
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
        # Not persistent: a checkpoint contains the published keys of the network and no others.
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1), persistent=False)
        self.split_metrics = nn.ModuleDict()
        self.results: dict[str, dict[str, Tensor]] = {}
        """All metrics of each split, after its last epoch."""

    def total_steps(self) -> float:
        """Return the number of optimizer steps of the training, as Lightning counts them.

        Raises:
            ConfigurationError: if the training has no end, and so no progress.
        """
        if self.trainer.estimated_stepping_batches == math.inf:
            raise ConfigurationError(
                "a schedule by progress requires an end: type trainer.max_epochs=..."
            )
        return self.trainer.estimated_stepping_batches

    @property
    def uses_plateau(self) -> bool:
        """Whether the learning rate follows the monitored metric instead of training progress."""
        schedule = self.schedule
        return isinstance(schedule, partial) and schedule.func is ReduceLROnPlateau

    def make_lr_scheduler(self, optimizer: Optimizer, *, steps: int) -> LambdaLR:
        """Create a scheduler that follows training progress.

        Args:
            optimizer: the optimizer.
            steps: total number of its steps.
        """
        schedule: Any = self.schedule
        last = max(steps - 1, 1)
        return LambdaLR(optimizer, lambda step: schedule(min(step / last, 1.0)))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        seed_all(self.seed, self.current_epoch, batch_idx, self.global_rank)

    @property
    def step_is_complete(self) -> bool:
        """Whether the last batch completed an optimizer step; for manual optimization."""
        return True

    def network_state_dict(self) -> dict[str, Tensor]:
        """Return the weights to save as ``model.pth``."""
        return self.network.state_dict()

    def load_network_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the weights of a ``model.pth``.

        Raises:
            RuntimeError: if they do not fit the network.
        """
        self.network.load_state_dict(state)

    def flop_inputs(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """Return a module and meta-device inputs of a forward pass, to count FLOPs per image."""
        size = (1, self.spec.channels, *self.spec.image_size)
        return self.network, (torch.empty(*size, device="meta"),)

    def learning_rates(self) -> dict[str, float]:
        """Return the current learning rate of each optimizer by name."""
        return {"lr": self.trainer.optimizers[0].param_groups[0]["lr"]}

    @property
    def uses_class_labels(self) -> bool:
        """Whether the task uses class labels; evaluation data must then have the same classes."""
        return True

    def metric_names(self, split: str) -> set[str]:
        """Return the names of the scalar metrics of a split, without the split."""
        return set(dict(self.split_metrics[f"on_{split}"].named_children()))

    def tensorboard_charts(self) -> Mapping[str, Sequence[str]]:
        """Return the curves to show together in TensorBoard, by title of the chart."""
        names = dict.fromkeys(["loss", self.monitor.rpartition("/")[2]])
        return {name: [f"train/{name}", f"val/{name}"] for name in names}

    def metric_settings(self) -> dict[str, Any]:
        """Return the settings that metrics depend on besides the data, such as a sample count."""
        return {}

    def scalar_metrics(self, split: str) -> dict[str, float]:
        """Return the metrics of a split that are single numbers, by name."""
        results = sorted(self.results[split].items())
        return {name: value.item() for name, value in results if value.ndim == 0}

    def per_class(self, split: str) -> dict[str, dict[str, float]]:
        """Return metrics of a split by class name."""
        return {}

    def draw_predictions(self, batch: Batch, predictions: Any) -> list[Tensor]:
        """Draw each image with its prediction and, if known, its target.

        Args:
            batch: the batch.
            predictions: its predictions, as returned by a step.

        Returns:
            Images, (3, h, w) uint8.
        """
        return []

    def contact_sheet(self, images: Sequence[Tensor]) -> Tensor:
        """Combine drawn images, at least one, to a sheet with a legend.

        Args:
            images: images as returned by ``draw_predictions``.

        Returns:
            The sheet, (3, H, W) uint8.
        """
        return grid(images)

    def figures(self, split: str) -> Mapping[str, Tensor]:
        """Draw charts of a whole split by name, (3, h, w) uint8."""
        return {}

    def sample_grid(self) -> Tensor | None:
        """Draw samples generated without data, (3, H, W) uint8; None if there are none."""
        return None

    def export(self, split: str, paths: Sequence[str]) -> Mapping[str, Any]:
        """Return results of a whole split for other programs.

        Args:
            split: name of the split; "predict" for predictions.
            paths: paths of its images; empty if they have none.

        Returns:
            Values that can be written as JSON, by file name without suffix.
        """
        return {}

    def enable_flip_tta(self) -> None:
        """Average the predictions of each image and its mirror image from now on.

        Raises:
            ConfigurationError: if predictions of this task cannot be averaged.
        """
        raise ConfigurationError(TTA_UNSUPPORTED)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the state of the training metrics of the current epoch, of all ranks."""
        states = [_get_state(metric) for metric in self._train_metrics()]
        checkpoint["metric_states"] = [states]
        if self.trainer.world_size > 1:
            checkpoint["metric_states"] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(checkpoint["metric_states"], states)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state of the training metrics."""
        states = checkpoint["metric_states"][self.global_rank]
        for metric, state in zip(self._train_metrics(), states, strict=True):
            for name, value in state.items():
                setattr(metric, name, value)

    def _train_metrics(self) -> list[Metric]:
        modules = self.split_metrics["on_train"].modules()
        return [module for module in modules if isinstance(module, Metric)]


class SplitMetrics(nn.Module):
    """Loss and metrics of one split, as modules that move to the device of the task.

    Args:
        metrics: the metrics.
    """

    loss: MeanMetric
    metrics: MetricCollection

    def __init__(self, metrics: MetricCollection) -> None:
        super().__init__()
        self.loss = MeanMetric()
        self.metrics = metrics


class SupervisedTask(Task):
    """A task with targets: one loss, and metrics accumulated over a whole split.

    The network maps (N, C, H, W) normalized images to outputs that only its head and its task know.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.flip_tta = False
        """Whether to average the predictions of each image and its mirror image."""
        splits = {split: SplitMetrics(self.metrics(split)) for split in ("train", "val", "test")}
        self.split_metrics = nn.ModuleDict({f"on_{name}": splits[name] for name in splits})

    def forward(self, images: Tensor) -> Any:
        """Normalize images and apply the network.

        Args:
            images: (N, C, H, W) uint8, or float in [0, 1].

        Returns:
            The outputs of the network.
        """
        if images.dtype == torch.uint8:
            # In place: allocating memory for each operation would take longer than the operation.
            return self.network(images.to(self.mean.dtype).div_(255).sub_(self.mean).div_(self.std))
        return self.network((images.to(self.mean.dtype) - self.mean) / self.std)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create the optimizer, and a scheduler that steps after each batch or validation."""
        parameters = []
        for parameter in self.network.parameters():
            if parameter.requires_grad:
                parameters.append(parameter)
        if not parameters:
            raise ConfigurationError(
                "model.freeze leaves nothing to train: type model.freeze=backbone or null"
            )
        optimizer = self.optimizer(parameters)
        lr_scheduler: Any
        if self.uses_plateau:
            make: Any = self.schedule
            lr_scheduler = {
                "scheduler": make(optimizer, mode=self.monitor_mode),
                "monitor": self.monitor,
                "frequency": self.trainer.check_val_every_n_epoch or 1,
            }
        else:
            scheduler = self.make_lr_scheduler(optimizer, steps=int(self.total_steps()))
            lr_scheduler = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": lr_scheduler}

    @abstractmethod
    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Compute scalar losses.

        Args:
            outputs: outputs of the network.
            batch: the batch.

        Returns:
            Losses by name; ``loss`` is minimized.
        """

    @abstractmethod
    def decode(self, outputs: Any) -> Any:
        """Convert outputs of the network to predictions, for metrics and drawing."""

    def average_flipped(self, outputs: Any, flipped: Any) -> Any:
        """Average the outputs of images and of their mirror images.

        Args:
            outputs: outputs of the images.
            flipped: outputs of the mirror images.

        Raises:
            ConfigurationError: if outputs of this task cannot be averaged.
        """
        raise ConfigurationError(TTA_UNSUPPORTED)

    def enable_flip_tta(self) -> None:
        self.flip_tta = True

    def enable_tiling(self, overlap: float) -> None:
        """Predict images at their original size, tile by tile, from now on.

        Args:
            overlap: overlap of adjacent tiles, as a fraction of their side.

        Raises:
            ConfigurationError: if the task does not predict pixels.
        """
        raise ConfigurationError("mode.tiles=true is for tasks that predict pixels (task=segment)")

    @abstractmethod
    def metrics(self, split: str) -> MetricCollection:
        """Create the metrics of a split; scalar ones are logged under their names.

        Called by the constructor of this class, before that of a subclass has finished.
        """

    @abstractmethod
    def draw_predictions(self, batch: Batch, predictions: Any) -> list[Tensor]:
        pass

    @abstractmethod
    def table_rows(self, batch: Batch, predictions: Any) -> list[dict[str, str | float]]:
        """Return rows of the table of predictions, all with the same columns.

        Args:
            batch: the batch.
            predictions: its predictions.

        Returns:
            One or more rows for each image.
        """

    @abstractmethod
    def save_predictions(
        self,
        batch: Batch,
        predictions: Any,
        folder: Path,
        *,
        names: Sequence[str],
        images: Iterable[Tensor],
    ) -> None:
        """Write a file for each image, if predictions are more than table rows.

        Args:
            batch: the batch.
            predictions: its predictions.
            folder: output folder.
            names: file name of each image's predictions, without suffix.
            images: (C, h, w) uint8 images at their original size, read lazily.
        """

    def metric_names(self, split: str) -> set[str]:
        names = {"loss"}
        for name, metric in self._split_metrics(split).metrics.items():
            names.update(getattr(metric, "names", (name,)))
        return names

    def update_metrics(self, metrics: MetricCollection, batch: Batch, predictions: Any) -> None:
        """Update metrics with a batch.

        Args:
            metrics: the metrics of a split.
            batch: the batch.
            predictions: its predictions.
        """
        metrics.update(predictions, batch.targets)

    def collect_examples(self, split: str, batch: Batch, predictions: Any) -> None:
        """Collect examples for the figures from a batch of an evaluation.

        Args:
            split: name of the split.
            batch: the batch.
            predictions: its predictions.
        """

    def reset_examples(self, split: str) -> None:
        """Drop the examples of a split, which are from an earlier epoch."""

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        if not batch.samples:  # none of its files is readable
            if self.trainer.world_size == 1:
                return None
            return self._zero_loss()
        outputs = self(batch.images)
        losses = self.losses(outputs, batch)
        # Without training metrics there is no need to decode, which takes long for detectors.
        has_metrics = len(self._split_metrics("train").metrics) > 0
        predictions = self.decode(outputs) if has_metrics else None
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
        """Apply the network, with test-time augmentation if it is enabled.

        Args:
            images: (N, C, H, W) uint8.
        """
        outputs = self(images)
        if not self.flip_tta:
            return outputs
        return self.average_flipped(outputs, self(images.flip(-1)))

    def on_validation_batch_start(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # Some losses sample at random (Faster R-CNN's); the same data must give the same loss.
        seed_all(self.seed, 0, batch_idx, self.global_rank)

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        seed_all(self.seed, 0, batch_idx, self.global_rank)

    def on_validation_epoch_start(self) -> None:
        self.reset_examples("val")

    def on_test_epoch_start(self) -> None:
        self.reset_examples("test")

    def on_train_epoch_end(self) -> None:
        self._finish_split("train")

    def on_validation_epoch_end(self) -> None:
        self._finish_split("val")

    def on_test_epoch_end(self) -> None:
        self._finish_split("test")

    def _zero_loss(self) -> dict[str, Tensor]:
        """Return a loss with zero gradients: under DDP each rank must join every all-reduce."""
        terms = [parameter.sum() * 0 for parameter in self.network.parameters()]
        return {"loss": torch.stack(terms).sum()}

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
        split_metrics = self._split_metrics(split)
        split_metrics.loss.update(losses["loss"].detach(), weight=len(batch.samples))
        if len(split_metrics.metrics):
            self.update_metrics(split_metrics.metrics, batch, predictions)

    def _split_metrics(self, split: str) -> SplitMetrics:
        split_metrics = self.split_metrics[f"on_{split}"]
        assert isinstance(split_metrics, SplitMetrics)
        return split_metrics

    def _finish_split(self, split: str) -> None:
        """Compute, store, log and reset the loss and the metrics of a split."""
        state = self._split_metrics(split)
        # In the sanity check too, so that a metric that cannot be computed fails before training.
        values = {"loss": state.loss.compute(), **state.metrics.compute()}
        state.loss.reset()
        state.metrics.reset()
        if self.trainer.sanity_checking:
            return
        self.results[split] = values
        for name, value in values.items():
            if value.ndim == 0:  # values per class are only stored
                self.log(f"{split}/{name}", value)


def main_logits(outputs: Any) -> Tensor:
    """Return the first output of a network that may return a tuple of main and auxiliary logits."""
    main: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return main


def average_logits(first: Tensor, second: Tensor) -> Tensor:
    """Return logits whose probabilities are the mean of those of two tensors of logits.

    Args:
        first: (N, K, ...) logits.
        second: logits of the same shape.
    """
    log_probabilities = [logits.float().log_softmax(dim=1) for logits in (first, second)]
    return torch.stack(log_probabilities).logsumexp(dim=0) - math.log(2)


def _get_state(metric: Metric) -> dict[str, Any]:
    """Return the state of a metric on the CPU, by the names of its attributes."""
    state: dict[str, Any] = {}
    for name, value in metric.metric_state.items():
        state[name] = [item.cpu() for item in value] if isinstance(value, list) else value.cpu()
    state["_update_count"] = metric._update_count  # at 0 torchmetrics would warn in compute()
    return state
