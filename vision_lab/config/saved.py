"""Configs of earlier runs: ``run=`` and ``resume=`` start from the config that a run was made with.

Each group of the saved config is added to Hydra's config store as the option ``_from_run`` and
selected, unless the command line selects another option. A group on the command line is therefore
composed again and replaces the saved node; overrides of single keys are applied last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore

from vision_lab.config.groups import find_groups
from vision_lab.config.trust import find_untrusted
from vision_lab.config.trusted_packages import remember_packages, remembered_packages
from vision_lab.core.errors import ConfigurationError
from vision_lab.run_folders.folder import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vision_lab.config.overrides import CommandLine

SAVED_OPTION = "_from_run"
"""Name of the option that contains a saved group."""

COMMAND_KEYS = frozenset(
    "name run resume force extend trust remember source mode hydra debug search".split()
)
"""Keys that belong to a single command and are never taken from a run."""


@dataclass(frozen=True)
class SavedRun:
    """What a command takes from an earlier run, besides its config.

    Attributes:
        choices: chosen option of the run by group.
        class_names: class names of the run's data; None to read them from the data.
    """

    choices: Mapping[str, str | None] = field(default_factory=dict)
    class_names: Sequence[str] | None = None


def add_saved_config(command: CommandLine) -> tuple[CommandLine, SavedRun]:
    """Make the config of the run given by ``run=`` or ``resume=`` the starting point of a command.

    Args:
        command: the command line.

    Returns:
        The command line to compose instead, and what else the command takes from the run.

    Raises:
        ConfigurationError: if there is no such run, if both keys or several runs are given, or if
            the run's config contains code that the command line does not trust.
    """
    path, key = _find_run_path(command)
    if path is None:
        return command, SavedRun()
    run = Run.open(path, key=key)
    saved = _read_composed_config(run, find_groups(command.config_folders))
    _check_trusted(command, saved)
    class_names = None
    if key == "run":
        # The data may be absent now; its class names were read when the run was trained.
        spec = run.spec
        class_names = spec["class_names"]
        saved["data"]["spec"] = {**spec, "class_names": "${saved_class_names:}"}
    download_keys = {"data", "data.root", "data.download"}
    if "download" in saved["data"] and not download_keys & set(command.keys):
        saved["data"]["download"] = False  # only the command line chooses a folder to download to
    return _select_saved_groups(command, saved), SavedRun(run.choices, class_names)


def _find_run_path(command: CommandLine) -> tuple[str | None, str]:
    run, resume = command.last_value("run"), command.last_value("resume")
    if run and resume:
        raise ConfigurationError(
            "type run= to start a new run with the config of an earlier one, or resume= to "
            "continue it; not both"
        )
    path, key = (resume, "resume") if resume else (run, "run")
    if path is not None and "'," in path:
        raise ConfigurationError(f"{key}= accepts a single run")
    return path, key


def remember_trust(command: CommandLine) -> None:
    """Remember the packages of ``trust=`` for later commands, with ``remember=true``.

    Args:
        command: the command line.
    """
    for override in command.parsed:
        if override.key_or_group == "remember" and override.value() is True:
            remember_packages(_get_trusted_packages(command))


def _check_trusted(command: CommandLine, saved: Mapping[str, Any]) -> None:
    inherited = {}
    for key, value in saved.items():
        if key not in COMMAND_KEYS:
            inherited[key] = value
    if command.last_value("mode") == "predict":
        inherited["data"] = {**inherited["data"], "root": None}  # which is not read
    errors = find_untrusted(
        _without(inherited, _find_replaced_keys(command)),
        trusted=[*_get_trusted_packages(command), *remembered_packages()],
        folders=command.config_folders[1:],
        typed=command.keys,
    )
    if errors:
        raise ConfigurationError("\n".join(errors))


def _find_replaced_keys(command: CommandLine) -> list[str]:
    """Return the keys whose saved value the command line replaces entirely.

    These are groups, and keys overridden by anything but a mapping, which would be merged.
    """
    groups = find_groups(command.config_folders)
    replaced = []
    for override in command.parsed:
        is_group = override.key_or_group in groups
        if is_group or not (override.is_sweep_override() or isinstance(override.value(), dict)):
            replaced.append(override.key_or_group)
    return replaced


def _without(
    config: Mapping[str, Any],
    keys: Collection[str],
    prefix: str = "",
) -> dict[str, Any]:
    """Return a copy of a config without the nodes at some dotted keys."""
    remaining: dict[str, Any] = {}
    for key, value in config.items():
        if not isinstance(value, dict):
            remaining[key] = value
        elif f"{prefix}{key}" not in keys:
            remaining[key] = _without(value, keys, f"{prefix}{key}.")
    return remaining


def _read_composed_config(run: Run, groups: Collection[str]) -> dict[str, Any]:
    """Read the config of a run.

    Raises:
        ConfigurationError: if it was not composed by Hydra: a node that is text would be parsed as
            YAML, and a defaults list would load any config file.
    """
    saved = run.config
    invalid = []
    for key, node in saved.items():
        is_misplaced = key in groups and not isinstance(node, dict | None)
        if is_misplaced or (isinstance(node, dict) and "defaults" in node):
            invalid.append(key)
    if not isinstance(saved.get("data"), dict):
        invalid.append("data")
    if invalid or "defaults" in saved or not all(isinstance(key, str) for key in saved):
        keys = ", ".join(map(str, dict.fromkeys(invalid)))
        raise ConfigurationError(f"{run.folder / 'config.yaml'} is not a composed config: {keys}")
    return saved


def _select_saved_groups(command: CommandLine, saved: dict[str, Any]) -> CommandLine:
    """Store the saved groups as options, and select those that the command line does not."""
    store = ConfigStore.instance()
    typed = set(command.keys)
    selected = []
    for group in find_groups(command.config_folders):
        if group in saved and group not in COMMAND_KEYS:
            store.store(
                group=group,
                name=SAVED_OPTION,
                node=saved.pop(group),
            )
            if group not in typed:
                selected.append(f"{group}={SAVED_OPTION}")
    plain_keys = {}
    for key, value in saved.items():
        if key not in COMMAND_KEYS:
            plain_keys[key] = value
    store.store(
        group="saved",
        name=SAVED_OPTION,
        node=plain_keys,
        package="_global_",
    )
    if f"+saved={SAVED_OPTION}" in command.overrides:
        return command  # a further process of the run, started with the overrides of the first
    return command.with_overrides([*selected, f"+saved={SAVED_OPTION}", *command.overrides])


def _get_trusted_packages(command: CommandLine) -> list[str]:
    """Return the packages listed in ``trust=`` on the command line."""
    value: Any = []
    for override in command.parsed:
        if override.key_or_group == "trust":
            value = override.value()
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ConfigurationError(f"trust={value}: type a list of packages, trust=[my_package]")
    return [str(name) for name in value]
