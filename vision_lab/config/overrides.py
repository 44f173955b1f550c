"""The words a person types: path values quoted before Hydra reads them, misspelt ones answered with what was meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

PATH_KEYS = {"run", "resume", "source", "data.root", "model.weights", "task.feature_extractor"}
"""Their values are taken as they are, whatever characters they hold; ``~`` is expanded."""

FLAGS_WITH_VALUE = {
    "--config-dir",
    "-cd",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--package",
    "-p",
    "--cfg",
    "-c",
}
"""Hydra's flags that take the next word as their value."""

MULTIRUN = ("-m", "--multirun")

OPTIONAL_GROUPS = ("experiment", "debug")
"""Groups without a default choice."""

NULL_VALUES = {"null", "none", "???", ""}
"""Values of path keys that are no paths."""


def quote_paths(words: Sequence[str]) -> list[str]:
    """The command line with the values of path keys quoted, so that Hydra's grammar leaves them alone.

    In a sweep (``-m``) commas go on separating values, unless the whole value is a path that exists.
    """
    sweep = any(word in MULTIRUN for word in words)
    return [_quoted(word, sweep=sweep) for word in words]


def last_value(words: Sequence[str], key: str) -> str | None:
    """The last value given to a key, without its quotes; None where it was not given."""
    values = [word.split("=", 1)[1] for word in words if word.startswith(f"{key}=")]
    if not values or values[-1] in NULL_VALUES:
        return None
    value = values[-1]
    return (
        value[1:-1].replace("\\'", "'") if value.startswith("'") and value.endswith("'") else value
    )


def parse_overrides(words: Sequence[str]) -> list[Override]:
    """What the words set, as Hydra reads it."""
    return OverridesParser.create().parse_overrides(overrides(words))


def overrides(words: Sequence[str]) -> list[str]:
    """The words that set something, without Hydra's flags and their values."""
    return _sorted(words)[1]


def flags_before_overrides(words: Sequence[str]) -> list[str]:
    """The same words in the one order that Hydra's parser takes: it refuses a flag between two settings."""
    flags, settings = _sorted(words)
    return [*flags, *settings]


def single_run_flags(words: Sequence[str]) -> list[str]:
    """Hydra's flags without the one that makes a sweep."""
    return [word for word in _sorted(words)[0] if word not in MULTIRUN]


def drop_null_groups(words: Sequence[str]) -> list[str]:
    """Leave out the words that say what is so without them, ``experiment=null``, which Hydra does not take."""
    return [word for word in words if word not in {f"{group}=null" for group in OPTIONAL_GROUPS}]


def flag_value(words: Sequence[str], *names: str) -> str | None:
    """The value of a flag of Hydra's, ``--flag value`` or ``--flag=value``; None where it is not typed."""
    for index, word in enumerate(words):
        if word in names and index + 1 < len(words):
            return words[index + 1]
        if word.partition("=")[0] in names and "=" in word:
            return word.partition("=")[2]
    return None


def asks_for_resolved_job(words: Sequence[str]) -> bool:
    """Whether the words ask for the config of a job with references followed, ``--cfg job --resolve``."""
    return "--resolve" in words and flag_value(words, "--cfg", "-c") == "job"


def _sorted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and settings."""
    flags: list[str] = []
    settings: list[str] = []
    awaited = False
    for word in words:
        (flags if awaited or word.startswith("-") else settings).append(word)
        awaited = not awaited and word in FLAGS_WITH_VALUE
    return flags, settings


def _quoted(word: str, *, sweep: bool) -> str:
    key, equals, value = word.partition("=")
    if (
        not equals
        or key.lstrip("+") not in PATH_KEYS
        or value in NULL_VALUES
        or value[:1] in "'\"["
    ):
        return word
    values = value.split(",") if sweep and not Path(value).expanduser().exists() else [value]
    return f"{key}=" + ",".join(part if part in NULL_VALUES else _quote(part) for part in values)


def _quote(value: str) -> str:
    path = Path(value).expanduser() if value.startswith("~") else Path(value)
    if "/" in value and path.exists():
        value = str(path.absolute())  # so that the same words mean the same from another folder
    elif value.startswith("~"):
        value = str(path)
    # In Hydra's grammar a backslash escapes a quote, and itself only before one.
    value = re.sub(r"(\\*)'", r"\1\1\\'", value)
    trailing = len(value) - len(value.rstrip("\\"))
    return f"'{value}{chr(92) * trailing}'"
