"""Parameters of functions and classes."""

from __future__ import annotations

from typing import Annotated, Any

from vision_lab.core.arguments import Count
from vision_lab.core.signatures import get_parameters


class Base:
    def __init__(self, *, count: Count, name: str = "") -> None: ...


class Inherits(Base):
    """Has no constructor of its own."""


class Extends(Base):
    def __init__(self, *, size: int, **arguments: Any) -> None: ...


def test_annotations_of_an_inherited_constructor_are_evaluated():
    parameters, accepts_others = get_parameters(Inherits)
    assert not accepts_others
    assert parameters["count"].annotation == Count == Annotated[int, Count.__metadata__[0]]
    assert parameters["name"].default == ""


def test_parameters_of_base_classes_are_included():
    parameters, accepts_others = get_parameters(Extends)
    assert set(parameters) == {"size", "count", "name"}
    assert not accepts_others
    assert parameters["count"].annotation == Count
