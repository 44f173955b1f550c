"""Exponential moving average of weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Tensors = tuple[Tensor, ...] | list[Tensor]


def make_ema(network: nn.Module, decay: float) -> AveragedModel:
    """Create a copy of a network whose weights will be the moving average of its weights.

    The decay is at most (1 + t) / (10 + t) at step t, to forget the initial weights quickly.

    Args:
        network: the network; its buffers are averaged too.
        decay: decay of the average, in (0, 1).

    Returns:
        The average; ``update_parameters(network)`` after each optimizer step updates it.
    """

    def update(
        averaged: Tensors,
        current: Tensors,
        count: Tensor | int,
    ) -> None:
        warmup_decay = (1 + int(count)) / (10 + int(count))
        get_ema_multi_avg_fn(min(decay, warmup_decay))(averaged, current, count)

    average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    return average.requires_grad_(False)
