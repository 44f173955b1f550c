"""YAML and JSON files that may come from anybody, read within limits. No torch here.

A small file can ask for much: an alias of an alias of an alias takes a gigabyte, ten thousand brackets end the parser.
So size, depth and aliases are looked at before anything is made of the text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from vision_lab.core.files import read_bytes
from vision_lab.core.text import first_line

MAX_BYTES = 10_000_000
"""Size of a file that is read as a whole; annotation files have limits of their own."""

MAX_DEPTH = 50
"""Levels of lists and mappings within each other."""

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DocumentError(ValueError):
    """A file that is not what its name promises; the text says why."""


def read_text(file: Path, *, max_bytes: int = MAX_BYTES) -> str:
    """Read a text file in UTF-8.

    Args:
        file: the file.
        max_bytes: its size at most.

    Raises:
        DocumentError: if it is no file, or larger, or not UTF-8.
        OSError: if it cannot be read.
    """
    try:
        return read_bytes(file, max_bytes=max_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"it is not UTF-8: {error.reason} at byte {error.start:,}") from error
    except ValueError as error:
        raise DocumentError(str(error)) from error
    except OSError as error:
        if error.filename is not None:  # the system's own answer names the file
            raise
        raise DocumentError(error.strerror) from error


def read_json(file: Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read a JSON file.

    Args:
        file: the file.
        max_bytes: its size at most.

    Raises:
        DocumentError: if it is larger, nested more than ``MAX_DEPTH`` levels deep, or not JSON.
    """
    text = read_text(file, max_bytes=max_bytes)
    try:
        content = json.loads(text)
    except RecursionError:
        raise DocumentError(f"it is nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise DocumentError(f"it is not JSON: {error}") from error
    check_depth(content)
    return content


def read_yaml(file: Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read a YAML file of plain values: mappings, lists, text, numbers, true, false and null.

    Args:
        file: the file.
        max_bytes: its size at most.

    Raises:
        DocumentError: if it is larger, nested more than ``MAX_DEPTH`` levels deep, uses aliases or tags, or is no YAML.
    """
    text = read_text(file, max_bytes=max_bytes)
    try:
        _check_events(text)
        content = yaml.load(text, Loader)
    except DocumentError:
        raise
    except yaml.YAMLError as error:
        raise DocumentError(f"it is not YAML: {first_line(error)}") from error
    except (ValueError, OverflowError) as error:
        raise DocumentError(f"it is not YAML of plain values: {first_line(error)}") from error
    check_plain(content)
    return content


def dump_yaml(content: Any) -> str:
    """Write plain values as YAML without aliases, keys in their order."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def check_depth(content: Any) -> None:
    """Check that plain values are nested no more than ``MAX_DEPTH`` levels deep.

    Raises:
        DocumentError: if they are.
    """
    level = [content]
    for _ in range(MAX_DEPTH + 1):
        containers = [value for value in level if isinstance(value, dict | list)]
        if not containers:
            return
        level = [
            inner
            for value in containers
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    raise DocumentError(f"it is nested more than {MAX_DEPTH} levels deep")


def check_plain(content: Any) -> None:
    """Check that a YAML file holds plain values under text keys.

    Raises:
        DocumentError: if it holds anything else, such as a date.
    """
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif not isinstance(value, str | int | float | None):
            raise DocumentError(f"it holds a {type(value).__name__}, {value}: write it in quotes")


def _check_events(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader):
        if isinstance(event, yaml.AliasEvent):
            raise DocumentError(f"it uses the alias *{event.anchor}: write the value out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise DocumentError(f"it is nested more than {MAX_DEPTH} levels deep")


class _Dumper(yaml.SafeDumper):
    """Values that stand in two places are written out in both."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML asks for each value
        return True
