"""``run=`` and ``resume=``: the config a run was made with is the starting point, whatever ``conf/`` says today.

Each group of the saved config is put into Hydra's store as the choice ``_saved`` and chosen, unless the command line
chooses another; so a group that is named is composed afresh and replaces its whole node, and dotted keys come last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from vision_lab.config.groups import groups
from vision_lab.config.overrides import last_value, parse_overrides
from vision_lab.config.trust import find_untrusted
from vision_lab.core.errors import ConfigurationError
from vision_lab.runs.folder import Run

SAVED_OPTION = "_from_run"

COMMAND_KEYS = ("name", "run", "resume", "force", "trust", "source", "mode", "hydra", "debug")
"""What a command says for itself and never takes from the run."""


@dataclass(frozen=True)
class SavedRun:
    """What a run's folder adds to a command.

    Attributes:
        choices: group: the choice that the run was made with.
        class_names: of the data that it was made with; None where the data is to say them.
    """

    choices: Mapping[str, str | None] = field(default_factory=dict)
    class_names: Sequence[str] | None = None


def add_saved_config(words: Sequence[str], folders: Sequence[Path]) -> tuple[list[str], SavedRun]:
    """Put the config of the run that a command names underneath it.

    Args:
        words: the command line.
        folders: where configs are looked for.

    Returns:
        The command line to be composed instead, and what the run's folder adds to it.

    Raises:
        ConfigurationError: if ``run=`` or ``resume=`` names no run, or several; or if the run's config would do what
            nobody said that it may.
    """
    path, resumed = last_value(words, "run"), last_value(words, "resume")
    if path and resumed:
        raise ConfigurationError(
            "type run=, to begin with what a run was told, or resume=, to go on with it; not both"
        )
    path = path or resumed
    if path is None:
        return list(words), SavedRun()
    if "'," in path:
        raise ConfigurationError(f"{'resume' if resumed else 'run'}= takes one run at a time")
    run = Run.open(path, key="resume" if resumed else "run")
    known = groups(folders)
    saved = _composed_config(run, known)
    typed = [override.key_or_group for override in parse_overrides(words)]
    errors = find_untrusted(
        _without(
            {key: value for key, value in saved.items() if key not in COMMAND_KEYS},
            _replaced_keys(words, known),
        ),
        trusted=_trusted(words),
        folders=folders[1:],
        typed=typed,
    )
    if errors:
        raise ConfigurationError("\n".join(errors))
    class_names = None
    if not resumed:
        # The data may be absent where the run is looked at again: its classes were read when the run was made.
        spec = run.spec
        class_names = spec["class_names"]
        saved["data"]["spec"] = {**spec, "class_names": "${saved_class_names:}"}
    if "download" in saved["data"] and not {"data", "data.root", "data.download"} & set(typed):
        saved["data"]["download"] = False  # where to is for the command line to say
    return _with_saved_groups(words, saved, known, named=set(typed)), SavedRun(
        run.choices, class_names
    )


def _replaced_keys(words: Sequence[str], known: Mapping[str, Any]) -> list[str]:
    """List the keys whose whole value the command line replaces or deletes; a mapping is merged instead.

    Args:
        words: the command line.
        known: the groups, of which each choice replaces the whole, in a sweep too.
    """
    return [
        override.key_or_group
        for override in parse_overrides(words)
        if override.key_or_group in known
        or not (override.is_sweep_override() or isinstance(override.value(), dict))
    ]


def _without(config: Mapping[str, Any], keys: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Return a copy of a config without the groups and nodes at some dotted keys."""
    kept = {
        key: value
        for key, value in config.items()
        if f"{prefix}{key}" not in keys or not isinstance(value, dict)
    }
    return {
        k: _without(v, keys, f"{prefix}{k}.") if isinstance(v, dict) else v for k, v in kept.items()
    }


def _composed_config(run: Run, known: Mapping[str, Any]) -> dict[str, Any]:
    """Read a run's config.

    Raises:
        ConfigurationError: if it is not one that was composed: Hydra would read a string as YAML, and follow a list of
            defaults wherever it leads.
    """
    saved = run.config
    strange = [
        key for key, node in saved.items() if key in known and not isinstance(node, dict | None)
    ]
    strange += [key for key, node in saved.items() if isinstance(node, dict) and "defaults" in node]
    if not isinstance(saved.get("data"), dict):
        strange.append("data")
    if strange or "defaults" in saved or not all(isinstance(key, str) for key in saved):
        keys = ", ".join(map(str, strange))
        raise ConfigurationError(f"{run.folder / 'config.yaml'} is not a composed config: {keys}")
    return saved


def _with_saved_groups(
    words: Sequence[str], saved: dict[str, Any], known: Mapping[str, Any], *, named: set[str]
) -> list[str]:
    store = ConfigStore.instance()
    chosen = []
    for group in known:
        if group in saved and group not in COMMAND_KEYS:
            store.store(group=group, name=SAVED_OPTION, node=saved.pop(group))
            chosen += [] if group in named else [f"{group}={SAVED_OPTION}"]
    rest = {key: value for key, value in saved.items() if key not in COMMAND_KEYS}
    store.store(group="saved", name=SAVED_OPTION, node=rest, package="_global_")
    if (
        f"+saved={SAVED_OPTION}" in words
    ):  # a further process of the same run, started with the words of the first
        return list(words)
    return [*chosen, f"+saved={SAVED_OPTION}", *words]


def _trusted(words: Sequence[str]) -> list[str]:
    """The packages that the command line trusts."""
    values = [
        override.value() for override in parse_overrides(words) if override.key_or_group == "trust"
    ]
    value = values[-1] if values else []
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ConfigurationError(f"trust={value}: type a list of packages, trust=[my_package]")
    return [str(name) for name in value]
