"""Class weights of a config."""

import pytest
import torch
from torch import nn

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.spec import DataSpec
from vision_lab.losses.class_weights import parse_class_weights, set_class_weights
from vision_lab.losses.classes import CrossEntropy, Focal, WeightedSum


def test_numbers_become_a_tensor(spec: DataSpec):
    assert torch.equal(parse_class_weights([1, 0, 2.5, 1], spec), torch.tensor([1, 0, 2.5, 1]))


@pytest.mark.parametrize("value", [None, "auto"])
def test_equal_and_computed_weights_are_none(spec: DataSpec, value: str | None):
    assert parse_class_weights(value, spec) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], r"class_weights=\[1,2\]: type one number for each of ash, beech, cedar, date"),
        ([0, 0, 0, 0], "type a number above 0 for at least one class"),
    ],
)
def test_invalid_weights_are_refused(spec: DataSpec, value: list, message: str):
    with pytest.raises(ArgumentError, match=message):
        parse_class_weights(value, spec)


@pytest.mark.parametrize(
    "loss",
    [CrossEntropy(), Focal(), nn.CrossEntropyLoss(), WeightedSum({"x": CrossEntropy()}, {})],
    ids=lambda loss: type(loss).__name__,
)
def test_weights_are_no_part_of_checkpoints(loss: nn.Module):
    set_class_weights(loss, torch.ones(3))
    assert torch.equal(loss.weight, torch.ones(3))
    assert len(list(loss.buffers())) == 1  # which moves to the device of the task
    assert loss.state_dict() == {}
