"""Schedulers of the learning rate, in Lightning's form."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import pytorch_lightning as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.errors import ConfigurationError
from vision_lab.training.lr_schedules import Schedule, SchedulerFactory


def follows_metric(schedule: Schedule | SchedulerFactory) -> bool:
    """Return whether the learning rate follows the monitored metric instead of progress."""
    make = schedule.make if isinstance(schedule, SchedulerFactory) else None
    return isinstance(make, partial) and make.func is ReduceLROnPlateau


def count_steps(trainer: pl.Trainer) -> int:
    """Return the number of optimizer steps of the training, as Lightning counts them.

    Args:
        trainer: the Trainer, whose data loaders are created by this.

    Raises:
        ConfigurationError: if the training has no end, and so no progress.
    """
    steps = trainer.estimated_stepping_batches
    if steps == math.inf:
        raise ConfigurationError(
            "a schedule by progress requires an end of training: set max_epochs"
        )
    return int(steps)


def make_lr_scheduler(
    schedule: Schedule | SchedulerFactory,
    optimizer: Optimizer,
    *,
    steps: int,
    monitor: str,
    monitor_mode: Literal["min", "max"],
    check_val_every_n_epoch: int,
) -> dict[str, Any]:
    """Create a scheduler, with Lightning's settings of when it steps.

    Args:
        schedule: factor of the learning rate by progress, or a factory of a scheduler.
        optimizer: the optimizer.
        steps: total number of its steps, for a schedule by progress.
        monitor: name of the metric that a scheduler may follow.
        monitor_mode: whether its best value is the largest or the smallest.
        check_val_every_n_epoch: number of epochs between two values of the metric.

    Raises:
        ArgumentError: if the scheduler rejects its arguments.
    """
    if not isinstance(schedule, SchedulerFactory):
        last = max(steps - 1, 1)
        by_progress = LambdaLR(optimizer, lambda step: schedule(min(step / last, 1.0)))
        return {"scheduler": by_progress, "interval": "step"}
    follows = follows_metric(schedule)
    try:
        scheduler = schedule.make(optimizer, **({"mode": monitor_mode} if follows else {}))
    except (TypeError, ValueError) as error:
        needed = f"arguments that the scheduler accepts: {error}"
        raise ArgumentError("schedule", "scheduler", needed) from error
    if follows:
        return {
            "scheduler": scheduler,
            "monitor": monitor,
            "frequency": check_val_every_n_epoch,
        }
    return {"scheduler": scheduler, "interval": schedule.interval}
