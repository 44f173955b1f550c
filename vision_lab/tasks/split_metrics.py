"""Metrics of a split, and their states in checkpoints."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection

from vision_lab.core.arguments import ArgumentError

MetricStates = list[dict[str, Any]]
"""The state of each metric, on the CPU, by the names of its attributes."""


class SplitMetrics(nn.Module):
    """Loss and metrics of one split, as modules that move to the device of the task.

    Args:
        metrics: the metrics of the task.
        added: further metrics by name.
        has_loss: whether the task has a loss.

    Raises:
        ArgumentError: if one of them is no torchmetrics ``Metric``, or has the name of another one.
    """

    loss: MeanMetric | None
    metrics: MetricCollection

    def __init__(
        self,
        metrics: MetricCollection,
        added: Mapping[str, Any],
        *,
        has_loss: bool = True,
    ) -> None:
        super().__init__()
        self.loss = MeanMetric() if has_loss else None
        self.metrics = metrics
        for name, metric in added.items():
            if not isinstance(metric, Metric):
                needed = f"a torchmetrics.Metric, not a {type(metric).__name__}"
                raise ArgumentError("metrics", name, needed)
            if name in self.names():
                needed = "another name: there is a metric of this name"
                raise ArgumentError("metrics", name, needed)
            metrics.add_metrics({name: metric.clone()})

    def names(self) -> set[str]:
        """Return the names of the loss and of all metrics."""
        names = {"loss"} if self.loss is not None else set()
        for name, metric in self.metrics.items():
            names.update(getattr(metric, "names", (name,)))
        return names

    def is_empty(self) -> bool:
        """Return whether no image was added in any process; all processes must call it."""
        if self.loss is None:
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of torchmetrics, that it is empty
            mean = self.loss.compute()
        return not self.loss.update_called and bool(mean.isnan())

    def compute_and_reset(self) -> dict[str, Tensor]:
        """Compute the loss and all metrics by name, and reset them for the next epoch."""
        values = dict(self.metrics.compute())
        if self.loss is not None:
            values = {"loss": self.loss.compute(), **values}
            self.loss.reset()
        self.metrics.reset()
        return values


def get_metric_states(module: nn.Module) -> MetricStates:
    """Return the states of all metrics in a module, to be stored in a checkpoint."""
    states = []
    for metric in _find_metrics(module):
        state: dict[str, Any] = {}
        for name, value in metric.metric_state.items():
            state[name] = [item.cpu() for item in value] if isinstance(value, list) else value.cpu()
        state["_update_count"] = metric._update_count  # at 0 torchmetrics would warn in compute()
        states.append(state)
    return states


def set_metric_states(module: nn.Module, states: Sequence[Mapping[str, Any]]) -> None:
    """Restore the states of all metrics in a module.

    Args:
        module: a module with the same metrics.
        states: what ``get_metric_states`` returned.
    """
    for metric, state in zip(_find_metrics(module), states, strict=True):
        for name, value in state.items():
            setattr(metric, name, value)


def _find_metrics(module: nn.Module) -> list[Metric]:
    return [metric for metric in module.modules() if isinstance(metric, Metric)]
