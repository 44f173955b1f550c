"""Reading of YAML and JSON files from untrusted sources.

A small file can require much memory: nested YAML aliases expand to gigabytes, and thousands of
brackets exhaust the parser's stack. Size, depth and aliases are therefore checked before parsing.
Does not import torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from vision_lab.core.files import read_bytes
from vision_lab.core.text import first_line

MAX_BYTES = 10_000_000
"""Default size limit of a file; annotation files have larger limits."""

MAX_DEPTH = 50
"""Maximum nesting depth of lists and mappings."""

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DocumentError(ValueError):
    """A file that cannot be parsed; the message gives the reason."""


def read_text(file: Path, *, max_bytes: int = MAX_BYTES) -> str:
    """Read a UTF-8 text file.

    Args:
        file: path of the file.
        max_bytes: maximum size of the file.

    Raises:
        DocumentError: if it is not a regular file, exceeds the size limit, or is not UTF-8.
        OSError: if it cannot be read.
    """
    try:
        return read_bytes(file, max_bytes=max_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"it is not UTF-8: {error.reason} at byte {error.start:,}") from error
    except ValueError as error:
        raise DocumentError(str(error)) from error
    except OSError as error:
        if error.filename is not None:  # the operating system's message names the file
            raise
        raise DocumentError(error.strerror) from error


def read_json(file: Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read a JSON file.

    Args:
        file: path of the file.
        max_bytes: maximum size of the file.

    Raises:
        DocumentError: if it exceeds the size limit or ``MAX_DEPTH``, or is not JSON.
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
        file: path of the file.
        max_bytes: maximum size of the file.

    Raises:
        DocumentError: if it exceeds the size limit or ``MAX_DEPTH``, contains aliases or tags, or
            is not YAML.
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
    """Format plain values as YAML without aliases, with keys in their order of insertion."""
    return yaml.dump(
        content,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=1000,
    )


def check_depth(content: Any) -> None:
    """Check that the nesting depth of plain values does not exceed ``MAX_DEPTH``.

    Raises:
        DocumentError: if it does.
    """
    level = [content]
    for _ in range(MAX_DEPTH + 1):
        containers = []
        for value in level:
            if isinstance(value, dict | list):
                containers.append(value)
        if not containers:
            return
        level = []
        for container in containers:
            level += container.values() if isinstance(container, dict) else container
    raise DocumentError(f"it is nested more than {MAX_DEPTH} levels deep")


def check_plain(content: Any) -> None:
    """Check that a parsed YAML file contains plain values only.

    Raises:
        DocumentError: if it contains another type, such as a date.
    """
    unchecked = [content]
    while unchecked:
        value = unchecked.pop()
        if isinstance(value, dict):
            unchecked += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            unchecked += value
        elif not isinstance(value, str | int | float | None):
            raise DocumentError(f"it contains a {type(value).__name__}, {value}: put it in quotes")


def _check_events(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader):
        if isinstance(event, yaml.AliasEvent):
            raise DocumentError(f"it uses the alias *{event.anchor}: write the value instead")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise DocumentError(f"it is nested more than {MAX_DEPTH} levels deep")


class _Dumper(yaml.SafeDumper):
    """Writes an object that occurs twice as two copies, never as an alias."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - called by PyYAML for each value
        return True
