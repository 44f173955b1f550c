"""Optimizers that update all parameters of a CPU in one pass over memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

EXCLUSIVE_ARGUMENTS = ("fused", "foreach", "capturable", "differentiable")
"""Arguments by which a user chooses an implementation."""


def can_fuse(
    optimizer: Callable[..., Any],
    parameters: Iterable[Tensor],
    arguments: Mapping[str, Any],
) -> bool:
    """Return whether torch has a fused implementation for parameters on the CPU.

    AdamW then takes a ninth of the time, with results that differ by rounding.

    Args:
        optimizer: class of the optimizer.
        parameters: the parameters.
        arguments: its arguments, which may choose an implementation.
    """
    if any(name in arguments for name in EXCLUSIVE_ARGUMENTS):
        return False
    if "fused" not in inspect.signature(optimizer).parameters:
        return False
    for parameter in parameters:
        is_plain = parameter.device.type == "cpu" and parameter.dtype == torch.float32
        if not is_plain or isinstance(parameter, DTensor):
            return False
    return True


def keep_layouts(optimizer: Optimizer) -> Optimizer:
    """Let a fused optimizer bring gradients and states to the memory layout of their parameters.

    torch's fused kernels for CPUs read them in the order of memory, whatever their strides.
    Autograd creates gradients with the layout of the parameter; a checkpoint of another device, or
    code that sets gradients itself, may not.

    Args:
        optimizer: the optimizer.

    Returns:
        The optimizer.
    """
    optimizer.register_step_pre_hook(_align_gradients)
    optimizer.register_load_state_dict_post_hook(_align_states)
    return optimizer


def _align_gradients(optimizer: Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and not _has_layout(parameter.grad, parameter):
                parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)


def _align_states(optimizer: Optimizer) -> None:
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            is_like = isinstance(value, Tensor) and value.shape == parameter.shape
            if is_like and not _has_layout(value, parameter):
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _has_layout(tensor: Tensor, parameter: Tensor) -> bool:
    if parameter.is_contiguous():
        return tensor.is_contiguous()
    return tensor.stride() == parameter.stride()
