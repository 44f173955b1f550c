"""The words a person types: path values quoted before Hydra reads them, misspelt ones answered with what was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from vision_lab.config.groups import CONF, Choice, groups

PATH_KEYS = {"run", "resume", "source", "data.root", "model.weights", "task.features"}
"""Their values are taken as they are, whatever characters they hold; ``~`` is expanded."""

VALUED = {"--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--cfg", "-c"}
"""Hydra's flags that take the next word as their value."""

MULTIRUN = ("-m", "--multirun")

OPTIONAL_GROUPS = ("experiment", "debug")
"""Groups without a default choice."""

WORDS = {"null", "none", "???", ""}
"""Values of path keys that are no paths."""


def quoted(words: Sequence[str]) -> list[str]:
    """The command line with the values of path keys quoted, so that Hydra's grammar leaves them alone.

    In a sweep (``-m``) commas go on separating values, unless the whole value is a path that exists.
    """
    sweep = any(word in MULTIRUN for word in words)
    return [_quoted(word, sweep=sweep) for word in words]


def value_of(words: Sequence[str], key: str) -> str | None:
    """The last value given to a key, without its quotes; None where it was not given."""
    values = [word.split("=", 1)[1] for word in words if word.startswith(f"{key}=")]
    if not values or values[-1] in WORDS:
        return None
    value = values[-1]
    return value[1:-1].replace("\\'", "'") if value.startswith("'") and value.endswith("'") else value


def parsed(words: Sequence[str]) -> list[Override]:
    """What the words set, as Hydra reads it."""
    return OverridesParser.create().parse_overrides(overrides(words))


def overrides(words: Sequence[str]) -> list[str]:
    """The words that set something, without Hydra's flags and their values."""
    return _sorted(words)[1]


def flags_first(words: Sequence[str]) -> list[str]:
    """The same words in the one order that Hydra's parser takes: it refuses a flag between two settings."""
    flags, settings = _sorted(words)
    return [*flags, *settings]


def flags_of_a_job(words: Sequence[str]) -> list[str]:
    """Hydra's flags without the one that makes a sweep."""
    return [word for word in _sorted(words)[0] if word not in MULTIRUN]


def find_word_errors(words: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """List words that Hydra would answer with a traceback, or take for something else.

    Args:
        words: the command line.
        folders: where configs are looked for.
    """
    errors = [f"--config-dir: there is no folder {folder}" for folder in folders if not folder.is_dir()]
    if "--resolve" in words and flag_value(words, "--cfg", "-c") is None:
        errors.append("--resolve goes with --cfg: type --cfg job --resolve")
    known = groups([folder for folder in folders if folder.is_dir()])
    ours = groups([CONF])
    for word in overrides(words):
        key, _, value = word.partition("=")
        group, _, package = key.lstrip("+~").partition("@")
        if not group:
            errors.append(f"{word}: what is it for? Type <key>={value or '...'}")
        elif group in known and (key.startswith("~") or package):
            errors.append(f"{word}: each group has one choice, in its own place: type {_typed_choices(group, known)}")
        elif group in ours and key.startswith("+"):
            errors.append(f"{word}: each group has a choice already: type {group}={value}")
        elif group in known and not _is_choosable(word, optional=group in OPTIONAL_GROUPS):
            errors.append(f"{word}: type {_typed_choices(group, known)}")
        elif group in OPTIONAL_GROUPS and "null" in value.split(",") and value != "null":
            errors.append(f"{word}: null is what {group} is without a word: leave it out of the list")
    return errors


def _is_choosable(word: str, *, optional: bool) -> bool:
    """Return whether the value of a group is the name of a choice, or several names.

    Args:
        word: of the command line.
        optional: whether the group may be left without a choice.
    """
    names = word.partition("=")[2].split(",")
    if not optional and ("" in names or "null" in names):
        return False
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return True  # answered by ``explained``
    if override.is_sweep_override():
        return override.is_discrete_sweep()
    value = override.value()
    return value is None or isinstance(value, str) or _is_list_of_names(value)


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def drop_null_groups(words: Sequence[str]) -> list[str]:
    """Leave out the words that say what is so without them, ``experiment=null``, which Hydra does not take."""
    return [word for word in words if word not in {f"{group}=null" for group in OPTIONAL_GROUPS}]


def _typed_choices(group: str, known: Mapping[str, Sequence[Choice]]) -> str:
    names = [choice.name for choice in known[group]]
    return f"{group}=<one of {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}>"


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
        awaited = not awaited and word in VALUED
    return flags, settings


def explained(words: Sequence[str], error: Exception, *, folders: Sequence[Path]) -> str:
    """What is wrong with the words, what was probably meant, and what there is to choose from.

    Args:
        words: the command line.
        error: what Hydra said of it.
        folders: where configs are looked for.
    """
    problems, choosing, setting = [], [], []
    known = groups(folders)
    for word in overrides(words):
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException:
            key, value = word.split("=", 1) if "=" in word else (word, "")
            problems.append(f"{word}: the value cannot be read: quote it, as in {key}='\"{value}\"'")
            continue
        if override.is_delete() or override.is_force_add():
            continue
        key = override.key_or_group
        if key in known and "." not in key:
            values = _values(override)
            problems += [
                _unknown_choice(key, value, [c.name for c in known[key]])
                for value in values
                if value not in {c.name for c in known[key]} | {None, "null"}
            ]
            if not override.is_sweep_override():
                choosing.append(word)
        elif not override.is_add():
            setting.append(key)
    if not problems:
        config = _composed(choosing, folders)
        problems = [_unknown_key(key, config, known) for key in setting if not _has(config, key)]
    return "\n".join(problems) or plain(error)


def _quoted(word: str, *, sweep: bool) -> str:
    key, equals, value = word.partition("=")
    if not equals or key.lstrip("+") not in PATH_KEYS or value in WORDS or value[:1] in "'\"[":
        return word
    values = value.split(",") if sweep and not Path(value).expanduser().exists() else [value]
    return f"{key}=" + ",".join(part if part in WORDS else _quote(part) for part in values)


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


def _values(override: Any) -> list[Any]:
    value = override.value()
    if override.is_sweep_override():
        try:
            return [str(each) for each in override.sweep_string_iterator()]
        except HydraException:  # a glob, whose choices only a loader of configs knows
            return []
    return value if isinstance(value, list) else [value]


def _unknown_choice(group: str, value: Any, names: Sequence[str]) -> str:
    return (
        f"{group}={value}: there is no such {group}.{_near(str(value), names)}\n  {group} is one of: {', '.join(names)}"
    )


def _unknown_key(key: str, config: DictConfig, known: Mapping[str, Sequence[Choice]]) -> str:
    every = _leaves(config)
    parent, _, last = key.rpartition(".")
    if "." not in key:
        options = list(dict.fromkeys([*known, *(str(name) for name in config)]))
        same = [full for full in every if full.rpartition(".")[2] == key]
        hint = f" Did you mean {_or(same[:4])}?" if same else _near(key, options)
        return f"{key}: there is no such key or group.{hint}\n  There are: {', '.join(options)}"
    node = OmegaConf.select(config, parent, throw_on_missing=False) if _has(config, parent) else None
    siblings = [str(name) for name in node if not str(name).startswith("_")] if isinstance(node, DictConfig) else []
    near = difflib.get_close_matches(last, siblings, n=3) or difflib.get_close_matches(key, every, n=3)
    full = [f"{parent}.{name}" if name in siblings else name for name in near]
    hint = f" Did you mean {_or(full)}?" if full else ""
    having = [
        choice.name for choice in known.get(parent, []) if f"\n{last}:" in choice.file.read_text(encoding="utf-8")
    ]
    hint = f" It goes with {parent}={' or '.join(having)}." if having else hint
    listed = f"\n  {parent} has: {', '.join(siblings)}" if siblings else ""
    return f"{key}: there is no such key.{hint}{listed}\n  To add it all the same, type +{key}=..."


def _near(word: str, options: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, options, n=3, cutoff=0.5)
    return f" Did you mean {_or(near)}?" if near else ""


def _or(names: Sequence[str]) -> str:
    return " or ".join(names)


def _composed(choosing: Sequence[str], folders: Sequence[Path]) -> DictConfig:
    """The config with the groups chosen and nothing else set."""
    from hydra import compose, initialize_config_dir

    others = ",".join(f"file://{folder.absolute()}" for folder in folders[1:])
    with initialize_config_dir(version_base="1.3", config_dir=str(folders[0])):
        return compose("config", overrides=[*choosing, f"hydra.searchpath=[{others}]"])


def _leaves(config: Any, prefix: str = "") -> list[str]:
    if not isinstance(config, DictConfig):
        return [prefix[:-1]]
    names = [str(name) for name in config if not str(name).startswith("_")]
    found = []
    for name in names:
        node = config._get_node(name)
        inner = isinstance(node, DictConfig) and not node._is_interpolation() and not node._is_none()
        found += _leaves(node, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return found


def _has(config: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(config, DictConfig) or part not in list(config.keys()):
            return False
        config = config._get_node(part)
    return True


def plain(error: Exception) -> str:
    causes: list[str] = []
    current: BaseException | None = error
    while current is not None:
        causes.append(str(current).strip())
        current = current.__cause__
    return "\n".join(dict.fromkeys(cause for cause in causes if cause))
