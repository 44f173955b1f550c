"""Fused optimizers: the numbers of the others, whatever the memory layout."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer, RMSprop

from vision_lab.training.optimizers import can_fuse, keep_layouts

OPTIMIZERS: list[Callable[..., Optimizer]] = [AdamW, partial(SGD, lr=0.1, momentum=0.9)]


def train(
    network: nn.Module, optimizer: Optimizer, *, steps: int, contiguous_gradients: bool = False
) -> None:
    for step in range(steps):
        images = torch.rand(2, 4, 6, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        network(images).square().sum().backward()
        if contiguous_gradients:
            for parameter in network.parameters():
                assert parameter.grad is not None
                parameter.grad = parameter.grad.clone(memory_format=torch.contiguous_format)
        optimizer.step()


def make_networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3))
    other = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    assert not other[0].weight.is_contiguous()  # type: ignore[index]
    return plain, other


def largest_difference(one: nn.Module, two: nn.Module) -> float:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("contiguous_gradients", [False, True])
def test_fused_steps_are_those_of_the_optimizer(
    make: Callable[..., Optimizer], contiguous_gradients: bool
):
    """With torch's kernel alone, gradients of another layout change the wrong weights."""
    plain, other = make_networks()
    train(plain, make(plain.parameters()), steps=5)
    fused = keep_layouts(make(other.parameters(), fused=True))
    train(other, fused, steps=5, contiguous_gradients=contiguous_gradients)
    assert largest_difference(plain, other) < 1e-5


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_states_of_another_layout_are_loaded(make: Callable[..., Optimizer]):
    """Such as those of a checkpoint that a GPU has saved."""
    plain, other = make_networks()
    first = make(plain.parameters())
    train(plain, first, steps=3)
    other.load_state_dict(plain.state_dict())
    fused = keep_layouts(make(other.parameters(), fused=True))
    state = copy.deepcopy(first.state_dict())
    state["param_groups"] = fused.state_dict()["param_groups"]
    fused.load_state_dict(state)
    train(plain, first, steps=3)
    train(other, fused, steps=3)
    assert largest_difference(plain, other) < 1e-5


@pytest.mark.parametrize(
    ("optimizer", "arguments", "dtype", "expected"),
    [
        (AdamW, {"lr": 0.1}, torch.float32, True),
        (AdamW, {"foreach": False}, torch.float32, False),
        (AdamW, {}, torch.bfloat16, False),
        (RMSprop, {}, torch.float32, False),
    ],
)
def test_what_can_be_fused(
    optimizer: Any, arguments: dict[str, Any], dtype: torch.dtype, expected: bool
):
    assert can_fuse(optimizer, [torch.zeros(1, dtype=dtype)], arguments) is expected
