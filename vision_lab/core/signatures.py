"""Parameters of functions and classes with evaluated annotations. Does not import torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def get_parameters(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the named parameters of a function or class.

    If a class accepts ``**kwargs``, the parameters of its base classes are included.

    Args:
        target: a function or class.

    Returns:
        The parameters by name, and whether ``target`` accepts further keyword arguments.

    Raises:
        ValueError, TypeError: if there is no signature, as for some functions written in C.
    """
    if not inspect.isclass(target):
        return _own_parameters(target)
    parameters, accepts_others = _own_parameters(target)
    for base in target.__mro__[1:]:
        if not accepts_others or base is object:
            break
        if "__init__" in vars(base):
            inherited, accepts_others = _own_parameters(vars(base)["__init__"])
            inherited.pop("self", None)
            parameters = {**inherited, **parameters}
    return parameters, accepts_others


def _own_parameters(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    globals_ = _globals_of(target)
    accepts_others = False
    named = {}
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            accepts_others = True
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            annotation = _evaluate(parameter.annotation, globals_)
            named[parameter.name] = parameter.replace(annotation=annotation)
    return named, accepts_others


def _globals_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the names that annotations of a function or class may refer to."""
    if inspect.isclass(target):
        target = target.__init__
    function: Any = inspect.unwrap(target)
    globals_: dict[str, Any] = getattr(function, "__globals__", {})
    return globals_


def _evaluate(annotation: Any, globals_: dict[str, Any]) -> Any:
    """Evaluate an annotation stored as text; keep one that names an import for type checkers."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, globals_)  # code of installed packages, never of a config
    except (NameError, AttributeError, TypeError, SyntaxError):
        return annotation
