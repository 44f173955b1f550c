"""Gradients: which parameters have them, and what Lightning does not do with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from pytorch_lightning.strategies import ParallelStrategy, Strategy
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters


def list_trainable(network: nn.Module, loss: nn.Module | None) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters that are not frozen, with their names.

    Args:
        network: the network.
        loss: a loss that may have parameters, whose names then begin with ``loss``.
    """
    parameters = list(network.named_parameters())
    if loss is not None:
        parameters += loss.named_parameters(prefix="loss")
    trainable = []
    for name, parameter in parameters:
        if parameter.requires_grad:
            trainable.append((name, parameter))
    return trainable


def zero_loss(network: nn.Module) -> Tensor:
    """Return a loss of 0 with a gradient of zeros for each parameter of a network."""
    return torch.stack([parameter.sum() * 0 for parameter in network.parameters()]).sum()


@contextmanager
def freeze_parameters(network: nn.Module) -> Iterator[None]:
    """Propagate gradients through a network without computing those of its parameters.

    Args:
        network: the network; what was frozen before stays frozen afterwards.
    """
    trainable = []
    for parameter in network.parameters():
        if parameter.requires_grad:
            trainable.append(parameter)
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def block_sync(strategy: Strategy) -> AbstractContextManager[None]:
    """Return a context without DDP's all-reduce, which waits for the gradients of all networks.

    Args:
        strategy: the strategy of the Trainer.
    """
    if isinstance(strategy, ParallelStrategy):
        return strategy.block_backward_sync()
    return nullcontext()


def average_gradients(network: nn.Module, strategy: Strategy) -> None:
    """Average the gradients of a network over all ranks, in place.

    Args:
        network: the network; parameters without a gradient get one of zeros.
        strategy: the strategy of the Trainer.
    """
    gradients = []
    for parameter in network.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    mean = strategy.reduce(parameters_to_vector(gradients), reduce_op="mean")
    vector_to_parameters(cast(Tensor, mean), gradients)
