"""Plain values become objects, and errors name the key."""

from functools import partial

import pytest

from vision_lab.config.instantiation import instantiate, locate, name_errors
from vision_lab.core.arguments import ArgumentError
from vision_lab.core.errors import ConfigurationError


class Part:
    def __init__(self, *items: int, size: int = 1, inner: object = None) -> None:
        if size < 0:
            raise ArgumentError("size", size, "a number of 0 or more")
        if size > 9:
            raise ValueError("size is too large")
        self.items, self.size, self.inner = items, size, inner


TARGET = f"{__name__}.Part"


def test_nested_nodes_are_built():
    part = instantiate({"_target_": TARGET, "_args_": [1, 2], "inner": {"_target_": TARGET}}, "a")
    assert part.items == (1, 2)
    assert isinstance(part.inner, Part)
    assert instantiate({"x": [{"_target_": TARGET}, 3]}, "a")["x"][1] == 3


def test_a_partial_node_is_not_called():
    made = instantiate({"_target_": TARGET, "_partial_": True, "size": 3}, "a")
    assert isinstance(made, partial)
    assert made(7).items == (7,)
    assert made().size == 3


def test_text_that_looks_like_an_interpolation_is_text():
    assert instantiate({"_target_": TARGET, "inner": "${oc.env:HOME}"}, "a").inner == (
        "${oc.env:HOME}"
    )


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"size": -1}, "head.size=-1: type a number of 0 or more"),
        ({"size": 10}, "head"),
        ({"width": 3}, "head"),
    ],
)
def test_rejected_arguments_are_named_by_their_key(node: dict, message: str):
    with pytest.raises(ConfigurationError) as caught:
        instantiate({"_target_": TARGET, **node}, "head")
    assert str(caught.value).startswith(message)


def test_errors_of_the_user_pass_unchanged():
    with pytest.raises(ConfigurationError, match=r"^type something else$"), name_errors("model"):
        raise ConfigurationError("type something else")


@pytest.mark.parametrize("name", ["nodots", "a b.c", "vision_lab.nothing.Here", "os.nothing", ""])
def test_names_that_cannot_be_imported(name: str):
    with pytest.raises((ImportError, AttributeError, ValueError)):
        locate(name)
