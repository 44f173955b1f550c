"""Unpromising trials of a search, ended early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl

from vision_lab.callbacks.epoch_metrics import EpochMetrics


class PruneTrial(EpochMetrics):
    """Reports a metric of each epoch to a search, and ends training if the trial is unpromising.

    Args:
        report: called with the metric and the epoch by rank 0, returns whether to end the trial.
        metric: name of the metric.
    """

    def __init__(
        self,
        report: Callable[[float, int], bool],
        metric: str,
    ) -> None:
        super().__init__()
        self.report = report
        self.metric = metric
        self.value = float("nan")
        """The last value that was reported."""
        self.is_pruned = False

    def on_epoch_metrics(
        self,
        trainer: pl.Trainer,
        metrics: dict[str, float],
    ) -> None:
        if self.metric not in metrics:
            return  # no validation in this epoch
        self.value = metrics[self.metric]
        is_unpromising = trainer.is_global_zero and self.report(self.value, trainer.current_epoch)
        is_last = trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.strategy.broadcast(is_unpromising) and not is_last:
            self.is_pruned = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "is_pruned": self.is_pruned,
            "value": self.value,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.is_pruned = state_dict["is_pruned"]
        self.value = state_dict["value"]
