"""``ManualTask``: a task that steps several optimizers itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from vision_lab.core.arguments import Count, NonNegative
from vision_lab.tasks.base import Task
from vision_lab.training.gradients import average_gradients, block_sync
from vision_lab.training.lr_schedules import SchedulerFactory


class ManualTask(Task):
    """A task with manual optimization, which does what Lightning then leaves to it.

    These are accumulation and clipping of gradients, their average over all ranks, steps of the
    schedulers, and means of the training metrics over an epoch.

    Args:
        gradient_clip_val: maximum gradient norm of each optimizer's parameters; None to disable.
        accumulate_grad_batches: number of batches per optimizer step.
        arguments: arguments of ``Task``.
    """

    def __init__(
        self,
        *,
        gradient_clip_val: NonNegative | None,
        accumulate_grad_batches: Count,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.automatic_optimization = False
        self.gradient_clip_val = gradient_clip_val or 0.0
        self.accumulate_grad_batches = accumulate_grad_batches
        self._step_complete = True
        self.last_losses: dict[str, Tensor] = {}
        """Losses of the last batch of each network."""

    @property
    def step_is_complete(self) -> bool:
        return self._step_complete

    def start_batch(self, batch_idx: int) -> tuple[int, bool]:
        """Return the window of accumulated batches of a batch, and whether the batch is its last.

        Args:
            batch_idx: index of the batch in the epoch.
        """
        window, index = divmod(batch_idx, self.accumulate_grad_batches)
        is_last_of_window = index + 1 == self.accumulate_grad_batches
        self._step_complete = is_last_of_window or self.trainer.is_last_batch
        return window, self._step_complete

    def steps_per_epoch(self) -> int:
        """Return the number of optimizer steps in an epoch."""
        return math.ceil(self.trainer.num_training_batches / self.accumulate_grad_batches)

    def accumulate(self, loss: Tensor) -> None:
        """Accumulate the gradients of a loss, divided by the number of batches of a step."""
        with block_sync(self.trainer.strategy):
            self.manual_backward(loss / self.accumulate_grad_batches)

    def step(
        self,
        index: int,
        network: nn.Module,
    ) -> None:
        """Step an optimizer with gradients averaged over ranks, and then its scheduler.

        Args:
            index: index of the optimizer.
            network: the network whose parameters it updates.
        """
        if self.trainer.world_size > 1:
            average_gradients(network, self.trainer.strategy)
        optimizer: Any = self.optimizers()[index]  # type: ignore[index]
        optimizer.step()
        optimizer.zero_grad()
        schedule = self.schedule
        by_epoch = isinstance(schedule, SchedulerFactory) and schedule.interval == "epoch"
        if not by_epoch or self.trainer.is_last_batch:
            self.lr_scheduler_step(self.lr_schedulers()[index], None)  # type: ignore[index]

    def update_train_metrics(
        self,
        values: Mapping[str, Tensor],
        *,
        weight: int,
        losses: Sequence[str],
    ) -> dict[str, Tensor]:
        """Update those training metrics that the task has.

        Args:
            values: scalars by name.
            weight: number of images they are means over.
            losses: names of the losses among them.

        Returns:
            The losses that the task has, detached.
        """
        metrics = self.metrics_of("train")
        updated = {}
        for name in metrics:
            if name in values:
                updated[name] = values[name].detach()
                metrics[name].update(updated[name], weight=weight)
        return {name: updated[name] for name in losses if name in updated}

    def metrics_of(self, split: str) -> dict[str, Any]:
        """Return the metrics of a split by name."""
        return dict(self.split_metrics[f"on_{split}"].items())  # type: ignore[operator]

    def on_validation_model_zero_grad(self) -> None:
        """Keep accumulated gradients, of which Lightning does not know, during a validation."""
        if self._step_complete:
            super().on_validation_model_zero_grad()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the last losses too, because they are logged until there are new ones."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["last_losses"] = {name: value.cpu() for name, value in self.last_losses.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        losses = checkpoint["last_losses"]
        self.last_losses = {name: value.to(self.device) for name, value in losses.items()}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the unscaled gradients."""
        if self.gradient_clip_val:
            self.clip_gradients(optimizer, self.gradient_clip_val)

    def on_train_epoch_end(self) -> None:
        values = {}
        for name, metric in self.metrics_of("train").items():
            # All ranks must compute the same metrics, which synchronizes them.
            if self.trainer.strategy.reduce_boolean_decision(metric.update_called, all=False):
                values[name] = metric.compute()
        for metric in self.metrics_of("train").values():
            metric.reset()
        self.results["train"] = values
        self.log_dict({f"train/{name}": value for name, value in values.items()})
