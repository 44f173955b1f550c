"""``SupervisedTask``: a task with targets, one loss, and metrics over whole splits."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.batch import Batch
from vision_lab.core.errors import ConfigurationError
from vision_lab.tasks.base import Task
from vision_lab.training.lr_schedules import SchedulerFactory
from vision_lab.training.seeding import seed_all


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

    Args:
        metrics: further metrics of validation and test by name, called with the predictions that
            ``decode`` returns and the targets of the batch.
        arguments: arguments of ``Task``.

    Raises:
        ArgumentError: if one of them is no torchmetrics ``Metric``, or has the name of another one.
    """

    def __init__(
        self,
        *,
        metrics: Mapping[str, Metric] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.flip_tta = False
        """Whether to average the predictions of each image and its mirror image."""
        self.added_metrics = tuple(metrics or ())
        for split in ("train", "val", "test"):
            collection = self.metrics(split)
            if split != "train":
                _add_metrics(collection, metrics or {})
            self.split_metrics[f"on_{split}"] = SplitMetrics(collection)

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
        parameters = self.trainable_parameters()
        if not parameters:
            raise ConfigurationError("the network is frozen: it has no parameter to train")
        optimizer = self.optimizer(parameters)
        steps = 0 if isinstance(self.schedule, SchedulerFactory) else int(self.total_steps())
        lr_scheduler: Any = self.make_lr_scheduler(optimizer, steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": lr_scheduler}

    def trainable_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return the parameters of the network and of the loss that are not frozen, with names."""
        parameters = list(self.network.named_parameters())
        loss = getattr(self, "loss", None)
        if isinstance(loss, nn.Module):
            parameters += loss.named_parameters(prefix="loss")
        trainable = []
        for name, parameter in parameters:
            if parameter.requires_grad:
                trainable.append((name, parameter))
        return trainable

    @abstractmethod
    def losses(
        self,
        outputs: Any,
        batch: Batch,
    ) -> dict[str, Tensor]:
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

    def average_flipped(
        self,
        outputs: Any,
        flipped: Any,
    ) -> Any:
        """Average the outputs of images and of their mirror images.

        Args:
            outputs: outputs of the images.
            flipped: outputs of the mirror images.

        Raises:
            ArgumentError: if outputs of this task cannot be averaged.
        """
        raise ArgumentError("tta", "flip", "null: this task cannot average predictions")

    def enable_flip_tta(self) -> None:
        if type(self).average_flipped is SupervisedTask.average_flipped:
            super().enable_flip_tta()  # which is refused
        self.flip_tta = True

    @abstractmethod
    def metrics(self, split: str) -> MetricCollection:
        """Create the metrics of a split; scalar ones are logged under their names.

        Called by the constructor of this class, before that of a subclass has finished.
        """

    def metric_names(self, split: str) -> set[str]:
        names = {"loss"}
        for name, metric in self._split_metrics(split).metrics.items():
            names.update(getattr(metric, "names", (name,)))
        return names

    def update_metrics(
        self,
        metrics: MetricCollection,
        batch: Batch,
        predictions: Any,
    ) -> None:
        """Update metrics with a batch.

        Args:
            metrics: the metrics of a split.
            batch: the batch.
            predictions: its predictions.
        """
        metrics.update(predictions, batch.targets)

    def training_step(
        self,
        batch: Batch,
        batch_idx: int,
    ) -> dict[str, Tensor] | None:
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

    def validation_step(
        self,
        batch: Batch,
        batch_idx: int,
    ) -> Any:
        return self._evaluate("val", batch)

    def test_step(
        self,
        batch: Batch,
        batch_idx: int,
    ) -> Any:
        return self._evaluate("test", batch)

    def predict_step(
        self,
        batch: Batch,
        batch_idx: int,
    ) -> Any:
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

    def on_test_batch_start(
        self,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        seed_all(self.seed, 0, batch_idx, self.global_rank)

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

    def _evaluate(
        self,
        split: str,
        batch: Batch,
    ) -> Any:
        if not batch.samples:
            return None
        outputs = self.forward_tta(batch.images)
        predictions = self.decode(outputs)
        self._record(split, self.losses(outputs, batch), predictions, batch)
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


def _add_metrics(collection: MetricCollection, metrics: Mapping[str, Any]) -> None:
    for name, metric in metrics.items():
        if not isinstance(metric, Metric):
            needed = f"a torchmetrics.Metric, not a {type(metric).__name__}"
            raise ArgumentError("metrics", name, needed)
        taken = {"loss"}
        for key, existing in collection.items():
            taken.update(getattr(existing, "names", (key,)))
        if name in taken:
            raise ArgumentError("metrics", name, "another name: there is a metric of this name")
        collection.add_metrics({name: metric.clone()})
