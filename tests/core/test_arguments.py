"""Plain values are checked against annotations."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest
import torch

from vision_lab.core.arguments import (
    Count,
    Counts,
    Fraction,
    Hint,
    OneOf,
    Positive,
    Range,
    check_value,
    describe,
    fits,
    format_value,
)

NODE = {"_target_": "torch.nn.ReLU"}


@pytest.mark.parametrize(
    ("annotation", "valid", "invalid"),
    [
        (int, [0, -3], [1.5, True, "1", None, [1]]),
        (float, [0, 1.5], [float("nan"), float("inf"), True, "1"]),
        (bool, [True], [1, "true"]),
        (str, ["a", ""], [1, None]),
        (Count, [1, 7], [0, -1, 1.0]),
        (Fraction, [0, 0.5, 1], [-0.1, 1.1]),
        (Positive, [1e-9], [0, -1]),
        (Counts, [[1], [2, 3]], [[], [0], 1]),
        (Annotated[int, Range(ge=8, multiple_of=8)], [8, 64], [0, 12]),
        (Literal["a", 1], ["a", 1], ["b", True, "1"]),
        (int | None, [None, 3], ["x"]),
        (tuple[int, int], [[1, 2]], [[1], [1, 2, 3], ["a", 1]]),
        (Sequence[str], [[], ["a"]], ["abc", [1]]),
        (Mapping[str, float], [{}, {"a": 1}], [{"a": "x"}, []]),
        (torch.nn.Module, [NODE], []),
        (Any, [1, "a", NODE, None], []),
        (Annotated[str, OneOf(lambda: ["ddp"])], ["ddp"], ["dp"]),
    ],
)
def test_values_fit(annotation: Any, valid: list, invalid: list):
    assert [value for value in valid if not fits(value, annotation)] == []
    assert [value for value in invalid if fits(value, annotation)] == []


def test_an_object_fits_no_plain_annotation():
    assert not fits(NODE, int)
    assert not fits(NODE, Literal["a"])
    assert fits(NODE, int | torch.nn.Module)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "a whole number"),
        (Count, "a whole number of 1 or more"),
        (Fraction, "a number from 0 to 1"),
        (bool, "true or false"),
        (Literal["warn", "stop"], "warn or stop"),
        (Count | None, "a whole number of 1 or more or null"),
        (Annotated[int, Range(ge=1), Hint("a size in pixels")], "a size in pixels"),
        (Annotated[str, OneOf(lambda: ["b", "a"])], "a or b"),
    ],
)
def test_valid_values_are_described(annotation: Any, text: str):
    assert describe(annotation) == text


def test_an_error_names_key_value_and_what_to_type():
    assert check_value("data.batch_size", 0, Count) == (
        "data.batch_size=0: type a whole number of 1 or more"
    )
    assert check_value("data.batch_size", 1, Count) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ([1, [None, "a"]], "[1,[null,a]]"),
        pytest.param(10**5000, "a number of thousands of digits", id="huge"),
    ],
)
def test_values_are_shown_as_they_are_typed(value: object, text: str):
    assert format_value(value) == text


def test_long_values_are_cut():
    assert format_value("x" * 10_000).endswith("x...")
    assert len(format_value("x" * 10_000)) < 300
