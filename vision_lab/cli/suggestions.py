"""Error messages for command lines that Hydra rejects: the error, a suggestion, the options."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from vision_lab.config.groups import CONFIG_DIR, ConfigOption, find_groups
from vision_lab.config.overrides import OPTIONAL_GROUPS, CommandLine

MAX_LISTED_OPTIONS = 12

Groups = Mapping[str, Sequence[ConfigOption]]


def find_command_errors(command: CommandLine) -> list[str]:
    """Find arguments that Hydra would misinterpret, or answer with a traceback.

    Args:
        command: the command line.

    Returns:
        An error message for each.
    """
    errors = []
    folders = []
    for folder in command.config_folders:
        if folder.is_dir():
            folders.append(folder)
        else:
            errors.append(f"--config-dir: there is no folder {folder}")
    if "--resolve" in command.flags and not command.shows_resolved_job:
        # Only our own --cfg job prints a class folder named "${oc.env:HOME}" as it is.
        errors.append("--resolve requires --cfg job: type --cfg job --resolve")
    if command.is_sweep and command.flag_value("--cfg", "-c"):
        errors.append("--cfg shows the config of a single run: type it without -m")
    groups = find_groups(folders)
    built_in_groups = find_groups([CONFIG_DIR])
    for override in command.overrides:
        error = _find_override_error(override, groups, built_in_groups)
        if error is not None:
            errors.append(error)
    return errors


def _find_override_error(
    word: str,
    groups: Groups,
    built_in: Groups,
) -> str | None:
    """Return what is wrong with an override, if anything.

    Args:
        word: the override.
        groups: all groups.
        built_in: those without ``--config-dir``.
    """
    key, _, value = word.partition("=")
    group, _, package = key.lstrip("+~").partition("@")
    if not group:
        return f"{word}: the key is missing: type <key>={value or '...'}"
    if group in groups and (key.startswith("~") or package):
        return f"{word}: a group has exactly one option: type {_format_options(group, groups)}"
    if group in built_in and key.startswith("+"):
        return f"{word}: {group} already has an option: type {group}={value}"
    is_optional = group in OPTIONAL_GROUPS
    if group in groups and not _is_option_name(word, is_optional=is_optional):
        return f"{word}: type {_format_options(group, groups)}"
    if is_optional and "null" in value.split(",") and value != "null":
        return f"{word}: null is the default of {group}: leave it out of the list"
    return None


def _is_option_name(word: str, *, is_optional: bool) -> bool:
    """Return whether an override of a group gives the name of an option, or a list of names."""
    names = word.partition("=")[2].split(",")
    if not is_optional and ("" in names or "null" in names):
        return False
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return True  # reported by ``explain_error``
    if override.is_sweep_override():
        return override.is_discrete_sweep()
    value = override.value()
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, str) for item in value)
    return value is None or isinstance(value, str)


def explain_error(command: CommandLine, error: Exception) -> str:
    """Explain why Hydra rejected a command line, with suggestions and the available options.

    Args:
        command: the command line.
        error: Hydra's exception.
    """
    groups = find_groups(command.config_folders)
    problems: list[str] = []
    valid_choices = []
    changed_keys = []
    for word in command.overrides:
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException:
            key, _, value = word.partition("=")
            problems.append(
                f"{word}: the value cannot be parsed: quote it, as in {key}='\"{value}\"'"
            )
            continue
        if override.is_delete() or override.is_force_add():
            continue
        key = override.key_or_group
        if key in groups and "." not in key:
            problems += _find_unknown_options(override, groups)
            if not override.is_sweep_override():
                valid_choices.append(word)
        elif not override.is_add():
            changed_keys.append(key)
    if not problems:
        config = _compose_choices(valid_choices, command.config_folders)
        for key in changed_keys:
            if not _has_key(config, key):
                problems.append(_unknown_key_message(key, config, groups))
    return "\n".join(problems) or _format_causes(error)


def _find_unknown_options(override: Override, groups: Groups) -> list[str]:
    group = override.key_or_group
    names = [option.name for option in groups[group]]
    errors = []
    for value in _get_values(override):
        if value not in [*names, None, "null"]:
            errors.append(
                f"{group}={value}: there is no such {group}.{_did_you_mean(str(value), names)}\n"
                f"  {group} is one of: {', '.join(names)}"
            )
    return errors


def _get_values(override: Override) -> list[Any]:
    value: Any = override.value()
    if override.is_sweep_override():
        try:
            return [str(item) for item in override.sweep_string_iterator()]
        except HydraException:  # a glob, which only Hydra's config loader expands
            return []
    if isinstance(value, list):
        return value
    return [value]


def _unknown_key_message(
    key: str,
    config: DictConfig,
    groups: Groups,
) -> str:
    all_keys = _list_keys(config)
    if "." not in key:
        options = list(dict.fromkeys([*groups, *(str(name) for name in config)]))
        same_name = []
        for full in all_keys:
            if full.rpartition(".")[2] == key:
                same_name.append(full)
        hint = _did_you_mean(key, options)
        if same_name:
            hint = f" Did you mean {_join(same_name[:4])}?"
        return (
            f"{key}: there is no such key or group.{hint}\n  Keys and groups: {', '.join(options)}"
        )
    parent, _, last = key.rpartition(".")
    siblings = _list_siblings(config, parent)
    near = [f"{parent}.{name}" for name in difflib.get_close_matches(last, siblings, n=3)]
    near = near or difflib.get_close_matches(key, all_keys, n=3)
    hint = f" Did you mean {_join(near)}?" if near else ""
    with_key = []
    for option in groups.get(parent, []):
        if any(f"\n{last}:" in text for text in option.texts()):
            with_key.append(option.name)
    if with_key:
        hint = f" It is a key of {parent}={_join(with_key)}."
    keys = f"\n  Keys of {parent}: {', '.join(siblings)}" if siblings else ""
    return f"{key}: there is no such key.{hint}{keys}\n  To add it anyway, type +{key}=..."


def _list_siblings(config: DictConfig, parent: str) -> list[str]:
    if not _has_key(config, parent):
        return []
    node = OmegaConf.select(config, parent, throw_on_missing=False)
    if not isinstance(node, DictConfig):
        return []
    names = []
    for name in node:
        if not str(name).startswith("_"):
            names.append(str(name))
    return names


def _list_keys(config: Any, prefix: str = "") -> list[str]:
    """Return the dotted keys of all values in a config."""
    keys = []
    for name in config:
        if not str(name).startswith("_"):
            node = config._get_node(name)
            is_mapping = isinstance(node, DictConfig) and not node._is_interpolation()
            if is_mapping and not node._is_none():
                keys += _list_keys(node, f"{prefix}{name}.")
            else:
                keys.append(f"{prefix}{name}")
    return keys


def _has_key(config: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(config, DictConfig) or part not in list(config.keys()):
            return False
        config = config._get_node(part)
    return True


def _compose_choices(choices: Sequence[str], folders: Sequence[Path]) -> DictConfig:
    """Compose a config from choices of groups alone."""
    from hydra import compose, initialize_config_dir

    search_path = ",".join(f"file://{folder.absolute()}" for folder in folders[1:])
    overrides = [*choices, f"hydra.searchpath=[{search_path}]"]
    with initialize_config_dir(version_base="1.3", config_dir=str(folders[0])):
        return compose("config", overrides=overrides)


def _did_you_mean(word: str, options: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, options, n=3, cutoff=0.5)
    if near:
        return f" Did you mean {_join(near)}?"
    return ""


def _format_options(group: str, groups: Groups) -> str:
    names = [option.name for option in groups[group]]
    more = " ..." if len(names) > MAX_LISTED_OPTIONS else ""
    return f"{group}=<one of {', '.join(names[:MAX_LISTED_OPTIONS])}{more}>"


def _join(names: Sequence[str]) -> str:
    return " or ".join(names)


def _format_causes(error: Exception) -> str:
    """Return the messages of an exception and its causes."""
    causes: list[str] = []
    current: BaseException | None = error
    while current is not None:
        message = str(current).strip()
        if message and message not in causes:
            causes.append(message)
        current = current.__cause__
    return "\n".join(causes)
