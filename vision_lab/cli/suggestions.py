"""Answers to a command line that Hydra does not take: what is wrong, what was probably meant, what there is."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from vision_lab.config.groups import CONFIG_DIR, ConfigOption, groups
from vision_lab.config.overrides import OPTIONAL_GROUPS, flag_value, overrides


def find_word_errors(words: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """List words that Hydra would answer with a traceback, or take for something else.

    Args:
        words: the command line.
        folders: where configs are looked for.
    """
    errors = [
        f"--config-dir: there is no folder {folder}" for folder in folders if not folder.is_dir()
    ]
    if "--resolve" in words and flag_value(words, "--cfg", "-c") is None:
        errors.append("--resolve goes with --cfg: type --cfg job --resolve")
    known = groups([folder for folder in folders if folder.is_dir()])
    ours = groups([CONFIG_DIR])
    for word in overrides(words):
        key, _, value = word.partition("=")
        group, _, package = key.lstrip("+~").partition("@")
        if not group:
            errors.append(f"{word}: what is it for? Type <key>={value or '...'}")
        elif group in known and (key.startswith("~") or package):
            errors.append(
                f"{word}: each group has one choice, in its own place: type {_typed_choices(group, known)}"
            )
        elif group in ours and key.startswith("+"):
            errors.append(f"{word}: each group has a choice already: type {group}={value}")
        elif group in known and not _is_choosable(word, optional=group in OPTIONAL_GROUPS):
            errors.append(f"{word}: type {_typed_choices(group, known)}")
        elif group in OPTIONAL_GROUPS and "null" in value.split(",") and value != "null":
            errors.append(
                f"{word}: null is what {group} is without a word: leave it out of the list"
            )
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


def _typed_choices(group: str, known: Mapping[str, Sequence[ConfigOption]]) -> str:
    names = [choice.name for choice in known[group]]
    return f"{group}=<one of {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}>"


def explain_error(words: Sequence[str], error: Exception, *, folders: Sequence[Path]) -> str:
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
            problems.append(
                f"{word}: the value cannot be read: quote it, as in {key}='\"{value}\"'"
            )
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
        config = _compose_choices(choosing, folders)
        problems = [
            _unknown_key(key, config, known) for key in setting if not _has_key(config, key)
        ]
    return "\n".join(problems) or error_chain_text(error)


def _values(override: Any) -> list[Any]:
    value = override.value()
    if override.is_sweep_override():
        try:
            return [str(each) for each in override.sweep_string_iterator()]
        except HydraException:  # a glob, whose choices only a loader of configs knows
            return []
    return value if isinstance(value, list) else [value]


def _unknown_choice(group: str, value: Any, names: Sequence[str]) -> str:
    return f"{group}={value}: there is no such {group}.{_did_you_mean(str(value), names)}\n  {group} is one of: {', '.join(names)}"


def _unknown_key(key: str, config: DictConfig, known: Mapping[str, Sequence[ConfigOption]]) -> str:
    every = _flatten_keys(config)
    parent, _, last = key.rpartition(".")
    if "." not in key:
        options = list(dict.fromkeys([*known, *(str(name) for name in config)]))
        same = [full for full in every if full.rpartition(".")[2] == key]
        hint = f" Did you mean {_or(same[:4])}?" if same else _did_you_mean(key, options)
        return f"{key}: there is no such key or group.{hint}\n  There are: {', '.join(options)}"
    node = (
        OmegaConf.select(config, parent, throw_on_missing=False)
        if _has_key(config, parent)
        else None
    )
    siblings = (
        [str(name) for name in node if not str(name).startswith("_")]
        if isinstance(node, DictConfig)
        else []
    )
    near = difflib.get_close_matches(last, siblings, n=3) or difflib.get_close_matches(
        key, every, n=3
    )
    full = [f"{parent}.{name}" if name in siblings else name for name in near]
    hint = f" Did you mean {_or(full)}?" if full else ""
    having = [
        choice.name
        for choice in known.get(parent, [])
        if f"\n{last}:" in choice.file.read_text(encoding="utf-8")
    ]
    hint = f" It goes with {parent}={' or '.join(having)}." if having else hint
    listed = f"\n  {parent} has: {', '.join(siblings)}" if siblings else ""
    return f"{key}: there is no such key.{hint}{listed}\n  To add it all the same, type +{key}=..."


def _did_you_mean(word: str, options: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, options, n=3, cutoff=0.5)
    return f" Did you mean {_or(near)}?" if near else ""


def _or(names: Sequence[str]) -> str:
    return " or ".join(names)


def _compose_choices(choosing: Sequence[str], folders: Sequence[Path]) -> DictConfig:
    """The config with the groups chosen and nothing else set."""
    from hydra import compose, initialize_config_dir

    others = ",".join(f"file://{folder.absolute()}" for folder in folders[1:])
    with initialize_config_dir(version_base="1.3", config_dir=str(folders[0])):
        return compose("config", overrides=[*choosing, f"hydra.searchpath=[{others}]"])


def _flatten_keys(config: Any, prefix: str = "") -> list[str]:
    if not isinstance(config, DictConfig):
        return [prefix[:-1]]
    names = [str(name) for name in config if not str(name).startswith("_")]
    found = []
    for name in names:
        node = config._get_node(name)
        inner = (
            isinstance(node, DictConfig) and not node._is_interpolation() and not node._is_none()
        )
        found += _flatten_keys(node, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return found


def _has_key(config: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(config, DictConfig) or part not in list(config.keys()):
            return False
        config = config._get_node(part)
    return True


def error_chain_text(error: Exception) -> str:
    causes: list[str] = []
    current: BaseException | None = error
    while current is not None:
        causes.append(str(current).strip())
        current = current.__cause__
    return "\n".join(dict.fromkeys(cause for cause in causes if cause))
