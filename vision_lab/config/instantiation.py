"""Instantiation of plain values: a mapping with ``_target_`` becomes a call, nothing else changes.

``hydra.utils.instantiate`` converts its input to an OmegaConf config again. It would resolve class
names that look like interpolations, and instantiate mappings that were read from a data file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from typing import Any

from vision_lab.core.arguments import ArgumentError, format_value
from vision_lab.core.errors import ConfigurationError, UserError
from vision_lab.core.spec import DataSpec

HYDRA_KEYS = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")
"""Keys of a node that are not arguments. The last two have no effect: all values are plain."""

SPEC_FIELDS = {field.name for field in fields(DataSpec)}
"""Arguments that models and heads take from the spec of the data."""

CALLED_LATER = frozenset({"model.network", "task.report"})
"""Nodes that other parts call with further arguments, so that they need no ``_partial_: true``."""

BUILD_ERRORS = (TypeError, ValueError, AssertionError, LookupError, ArithmeticError, ImportError)
"""Exceptions by which constructors reject their arguments."""


def locate(name: str) -> Callable[..., Any]:
    """Import a class or function by its dotted name.

    Raises:
        ImportError, AttributeError, ValueError: if it does not exist.
    """
    module, _, attribute = name.rpartition(".")
    if not module or not all(part.isidentifier() for part in name.split(".")):
        raise ValueError("expected a dotted name: package.module.Name")
    located: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return located


def instantiate(node: Any, path: str) -> Any:
    """Build the object that plain values describe.

    Args:
        node: plain values. A mapping with ``_target_`` is called with its other keys as arguments,
            or becomes a ``functools.partial`` with ``_partial_: true``.
        path: dotted key of the node, for error messages.

    Raises:
        ConfigurationError: if a class rejects its arguments.
    """
    if isinstance(node, list):
        return [instantiate(item, f"{path}.{index}") for index, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    if "_target_" not in node:
        return {key: instantiate(value, f"{path}.{key}") for key, value in node.items()}
    target = locate(node["_target_"])
    positional = [instantiate(item, f"{path}._args_") for item in node.get("_args_", ())]
    arguments = {}
    for key, value in node.items():
        if key not in HYDRA_KEYS:
            arguments[key] = instantiate(value, f"{path}.{key}")
    if node.get("_partial_", path in CALLED_LATER):
        return partial(target, *positional, **arguments)
    with name_errors(path, node):
        return target(*positional, **arguments)


@contextmanager
def name_arguments(
    path: str,
    node: Any = None,
    *,
    except_for: Collection[str] = (),
) -> Iterator[None]:
    """Name the config key in ``ArgumentError``s raised within this context.

    Args:
        path: dotted key of the node whose object may raise one.
        node: values of the node, searched for the key of the argument.
        except_for: arguments whose errors are raised unchanged.

    Raises:
        ConfigurationError: in place of an ``ArgumentError``.
    """
    try:
        yield
    except ArgumentError as error:
        if error.name in except_for:
            raise
        key = _find_key(node, error.name, error.value, path)
        if key is None and error.name in SPEC_FIELDS:
            key = f"data.spec.{error.name}"
        key = key or f"{path}.{error.name}"
        value = format_value(error.value)
        raise ConfigurationError(f"{key}={value}: type {error.needed}") from error


@contextmanager
def name_errors(path: str, node: Any = None) -> Iterator[None]:
    """Name the config key in errors raised by a constructor within this context.

    Args:
        path: dotted key of the node that is being built.
        node: values of the node, searched for the key of an invalid argument.

    Raises:
        ConfigurationError: in place of the constructor's exception.
    """
    try:
        with name_arguments(path, node):
            yield
    except UserError:
        raise
    except Exception as error:
        # Lightning's exception is recognized by name, because importing it would import torch.
        is_misconfiguration = type(error).__name__ == "MisconfigurationException"
        if not isinstance(error, BUILD_ERRORS) and not is_misconfiguration:
            raise
        reason = str(error).strip() or type(error).__name__
        raise ConfigurationError(f"{path} cannot be built: {reason}") from error


def _find_key(
    node: Any,
    name: str,
    value: Any,
    path: str,
) -> str | None:
    """Return the dotted key of an argument, searching nested nodes too."""
    if not isinstance(node, dict):
        return None
    if name in node and node[name] == value:
        return f"{path}.{name}"
    for key, inner in node.items():
        found = _find_key(inner, name, value, f"{path}.{key}")
        if found is not None:
            return found
    return None
