"""From plain values to objects: a mapping with ``_target_`` becomes a call, and nothing else is done to it.

Hydra's own function makes an OmegaConf config of what it gets, so that a class name that looks like a reference would
be followed, and a mapping that was read from a file built.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.errors import ConfigurationError, UserError

HYDRA_KEYS = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")
"""Keys of a node that are no arguments; the last two change nothing here, where all values are plain already."""


def locate(name: str) -> Callable[..., Any]:
    """Import what a dotted name says.

    Raises:
        ImportError, AttributeError, ValueError: if there is no such thing.
    """
    module, _, attribute = name.rpartition(".")
    if not module or not all(part.isidentifier() for part in name.split(".")):
        raise ValueError("a dotted name is needed: package.module.Name")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


BUILD_ERRORS = (TypeError, ValueError, AssertionError, LookupError, ArithmeticError, ImportError)
"""What constructors raise about their arguments."""


def instantiate(node: Any, path: str) -> Any:
    """Build what plain values describe.

    Args:
        node: values. A mapping with ``_target_`` becomes what that class or function returns for the other keys, or a
            partial of it with ``_partial_: true``.
        path: the dotted key of the node, for errors.

    Raises:
        ConfigurationError: if a class does not take its values.
    """
    if isinstance(node, list):
        return [instantiate(each, f"{path}.{index}") for index, each in enumerate(node)]
    if not isinstance(node, dict):
        return node
    if "_target_" not in node:
        return {key: instantiate(value, f"{path}.{key}") for key, value in node.items()}
    target = locate(node["_target_"])
    positional = [instantiate(each, f"{path}._args_") for each in node.get("_args_", ())]
    arguments = {
        key: instantiate(value, f"{path}.{key}")
        for key, value in node.items()
        if key not in HYDRA_KEYS
    }
    if node.get("_partial_", False):
        return partial(target, *positional, **arguments)
    with explained(path, node):
        return target(*positional, **arguments)


@contextmanager
def explained(path: str, node: Any = None) -> Iterator[None]:
    """Say which part of the config it was that could not be built.

    Args:
        path: the dotted key of the part.
        node: its values, in which the key of an argument is looked for.

    Raises:
        ConfigurationError: in the place of what a constructor raises about its arguments.
    """
    try:
        yield
    except UserError:
        raise
    except ArgumentError as error:
        key = _find_key(node, error.name, error.value, path) or f"{path}.{error.name}"
        raise ConfigurationError(f"{key}={error.value}: type {error.needed}") from error
    except Exception as error:
        # Lightning's own error is known by its name: to import it here would import torch.
        if (
            not isinstance(error, BUILD_ERRORS)
            and type(error).__name__ != "MisconfigurationException"
        ):
            raise
        reason = str(error).strip() or type(error).__name__
        raise ConfigurationError(f"{path} cannot be built: {reason}") from error


def _find_key(node: Any, name: str, value: Any, path: str) -> str | None:
    """Find the dotted key of an argument of a part, or of what it is built from."""
    if not isinstance(node, dict):
        return None
    if name in node and node[name] == value:
        return f"{path}.{name}"
    inner = (_find_key(each, name, value, f"{path}.{key}") for key, each in node.items())
    return next((key for key in inner if key), None)
