"""``SupervisedTask``: a task with targets, one loss, and metrics over whole splits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from vision_lab.core.batch import Batch
from vision_lab.core.errors import ConfigurationError, DataError
from vision_lab.tasks.base import Task
from vision_lab.tasks.split_metrics import SplitMetrics
from vision_lab.training.gradients import list_trainable, zero_loss
from vision_lab.training.lr_schedules import SchedulerFactory
from vision_lab.training.schedulers import count_steps
from vision_lab.training.seeding import seed_all
from vision_lab.training.sharding import is_sharded


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
        self.added_metrics = tuple(metrics or ())
        for split in ("train", "val", "test"):
            added = (metrics or {}) if split != "train" else {}
            self.split_metrics[f"on_{split}"] = SplitMetrics(
                self.metrics(split), added, has_loss=self.learns_by_gradients
            )

    def forward(self, images: Tensor) -> Any:
        """Normalize images and apply the network.

        Args:
            images: (N, C, H, W) uint8, or float in [0, 1].

        Returns:
            The outputs of the network.
        """
        dtype = self.mean.dtype
        if images.dtype == torch.uint8:
            # In place: allocating memory for each operation would take longer than the operation.
            pixels = images.to(dtype).div_(255).sub_(self.mean).div_(self.std)
        else:
            pixels = (images.to(dtype) - self.mean) / self.std
        # Not before: with channels last, subtracting the mean of each channel takes twice as long.
        return self.network(pixels.contiguous(memory_format=self.memory_format))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create the optimizer, and a scheduler that steps after each batch or validation."""
        loss = getattr(self, "loss", None)
        parameters = list_trainable(self.network, loss if isinstance(loss, nn.Module) else None)
        if not parameters:
            raise ConfigurationError("the network is frozen: it has no parameter to train")
        optimizer = self.optimizer(parameters)
        steps = 0 if isinstance(self.schedule, SchedulerFactory) else count_steps(self.trainer)
        lr_scheduler: Any = self.make_lr_scheduler(optimizer, steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": lr_scheduler}

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

    @abstractmethod
    def metrics(self, split: str) -> MetricCollection:
        """Create the metrics of a split; scalar ones are logged under their names.

        Called by the constructor of this class, before that of a subclass has finished.
        """

    def metric_names(self, split: str) -> set[str]:
        return self._split_metrics(split).names()

    def further_results(self, split: str) -> dict[str, Tensor]:
        """Compute what the metrics of a split are not enough for, at its end and on all ranks.

        Args:
            split: name of the split.

        Returns:
            Tensors by name; scalars are logged, and all are in ``results``.
        """
        return {}

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
            if is_sharded(self.network):
                raise DataError(
                    "none of the files of a batch can be read, but with trainer=fsdp each process "
                    "needs an image for each step: repair them, or type trainer=ddp"
                )
            return {"loss": zero_loss(self.network)}  # under DDP each rank must join an all-reduce
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
        return self(images)

    def on_validation_batch_start(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # Some losses sample at random (Faster R-CNN's); the same data must give the same loss.
        seed_all(self.seed, 0, batch_idx, self.global_rank)

    on_test_batch_start = on_validation_batch_start

    def on_train_epoch_end(self) -> None:
        self._finish_split("train")

    def on_validation_epoch_end(self) -> None:
        self._finish_split("val")

    def on_test_epoch_end(self) -> None:
        self._finish_split("test")

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
        if split_metrics.loss is not None:
            split_metrics.loss.update(losses["loss"].detach(), weight=len(batch.samples))
        if len(split_metrics.metrics):
            self.update_metrics(split_metrics.metrics, batch, predictions)

    def _split_metrics(self, split: str) -> SplitMetrics:
        split_metrics = self.split_metrics[f"on_{split}"]
        assert isinstance(split_metrics, SplitMetrics)
        return split_metrics

    def _finish_split(self, split: str) -> None:
        """Compute, store and log the loss and the metrics of a split."""
        # In the sanity check too, so that a metric that cannot be computed fails before training.
        if self._split_metrics(split).is_empty():
            if self.trainer.sanity_checking:
                return
            raise DataError(
                f"no image of the {split} split can be read: replace the files, or type "
                "data.on_error=raise to see why"
            )
        values = self._split_metrics(split).compute_and_reset()
        values |= self.further_results(split)
        if self.trainer.sanity_checking:
            return
        self.results[split] = values
        for name, value in values.items():
            if value.ndim == 0:  # values per class are only stored
                self.log(f"{split}/{name}", value)
