"""Arguments of parts that are called from Python, checked by name as those of a config are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import cache
from typing import Any, ParamSpec, TypeVar

from vision_lab.core.arguments import ArgumentError, describe, fits
from vision_lab.core.signatures import get_parameters

P = ParamSpec("P")
R = TypeVar("R")


def check_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function check its keyword arguments against their annotations.

    Args:
        function: a function with ranges and choices in its annotations, see ``core.arguments``.

    Returns:
        The function, which raises an ``ArgumentError`` that names an invalid argument.
    """

    @functools.wraps(function)
    def checked(*positional: P.args, **named: P.kwargs) -> R:
        annotations = _annotations(function)
        for name, value in named.items():
            if name in annotations and not fits(value, annotations[name]):
                needed = describe(annotations[name]) or "something else"
                raise ArgumentError(name, value, needed)
        return function(*positional, **named)

    return checked


@cache
def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations that can be checked: those that name an import for types cannot."""
    annotations = {}
    for name, parameter in get_parameters(function)[0].items():
        annotation = parameter.annotation
        if annotation is not parameter.empty and not isinstance(annotation, str):
            annotations[name] = annotation
    return annotations
