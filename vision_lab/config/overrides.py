"""The command line, split into flags and overrides. Imports Hydra only to parse overrides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vision_lab.config.groups import CONFIG_DIR, find_path_keys, find_text_keys
from vision_lab.core.files import expand_home

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

FLAGS_WITH_VALUE = set(
    "--config-dir -cd --config-path -cp --config-name -cn --package -p --cfg -c".split()
)
"""Hydra's flags that take the next word as their value."""

MULTIRUN_FLAGS = ("-m", "--multirun")

OPTIONAL_GROUPS = ("experiment", "debug")
"""Groups without a default option."""

NULL_VALUES = {"null", "none", "???", ""}
"""Values of path keys that are not paths."""


@dataclass(frozen=True)
class CommandLine:
    """A command line, parsed once.

    Attributes:
        flags: Hydra's flags and their values.
        overrides: everything else: ``key=value``, ``+key=value``, ``~key``.
    """

    flags: tuple[str, ...]
    overrides: tuple[str, ...]

    @classmethod
    def parse(cls, words: Sequence[str]) -> CommandLine:
        """Split the words of a command line.

        The values of path keys are quoted, so that Hydra's grammar accepts any characters in them.
        In a sweep (``-m``) commas still separate values, unless the whole value is an existing
        path. Overrides without effect (``experiment=null``), which Hydra rejects, are dropped.

        Args:
            words: the words after ``python -m vision_lab``.
        """
        flags: list[str] = []
        overrides: list[str] = []
        is_flag_value = False
        for word in words:
            is_flag = is_flag_value or word.startswith("-")
            (flags if is_flag else overrides).append(word)
            is_flag_value = not is_flag_value and word in FLAGS_WITH_VALUE
        no_effect = {f"{group}=null" for group in OPTIONAL_GROUPS}
        is_sweep = any(flag in MULTIRUN_FLAGS for flag in flags)
        quoted = []
        folders = cls(tuple(flags), ()).config_folders
        for word in overrides:
            if word not in no_effect:
                quoted.append(_quote_paths(word, folders, is_sweep=is_sweep))
        return cls(tuple(flags), tuple(quoted))

    @property
    def words(self) -> list[str]:
        """All words, flags first: Hydra's parser rejects a flag between two overrides."""
        return [*self.flags, *self.overrides]

    @property
    def is_sweep(self) -> bool:
        """Whether the command starts a sweep."""
        return any(flag in MULTIRUN_FLAGS for flag in self.flags)

    @property
    def shows_resolved_job(self) -> bool:
        """Whether the command shows the resolved config of a job: ``--cfg job --resolve``."""
        return "--resolve" in self.flags and self.flag_value("--cfg", "-c") == "job"

    @property
    def single_run_flags(self) -> list[str]:
        """The flags without the one that starts a sweep."""
        flags = []
        for flag in self.flags:
            if flag not in MULTIRUN_FLAGS:
                flags.append(flag)
        return flags

    @property
    def config_folders(self) -> list[Path]:
        """``conf/``, followed by the folder of ``--config-dir`` if there is one."""
        folder = self.flag_value("--config-dir", "-cd")
        if folder is None:
            return [CONFIG_DIR]
        return [CONFIG_DIR, Path(folder)]

    @cached_property
    def parsed(self) -> list[Override]:
        """The overrides, parsed by Hydra.

        Raises:
            HydraException: if one of them does not follow Hydra's grammar.
        """
        from hydra.core.override_parser.overrides_parser import OverridesParser

        return OverridesParser.create().parse_overrides(list(self.overrides))

    @property
    def keys(self) -> list[str]:
        """Keys and groups that are overridden."""
        return [override.key_or_group for override in self.parsed]

    def flag_value(self, *names: str) -> str | None:
        """Return the value of a flag, ``--flag value`` or ``--flag=value``; None if it is absent.

        Args:
            names: the flag's names.
        """
        for index, word in enumerate(self.flags):
            if word in names and index + 1 < len(self.flags):
                return self.flags[index + 1]
            name, equals, value = word.partition("=")
            if equals and name in names:
                return value
        return None

    def last_value(self, key: str) -> str | None:
        """Return the last value of a path key, unquoted; None if it is absent or null."""
        values = []
        for word in self.overrides:
            if word.startswith(f"{key}="):
                values.append(word.partition("=")[2])
        if not values or values[-1] in NULL_VALUES:
            return None
        value = values[-1]
        if value.startswith("'") and value.endswith("'"):
            return value[1:-1].replace("\\'", "'")
        return value

    def split_runs(self) -> list[CommandLine]:
        """Return a command for each run, if ``run=`` lists several of them with ``-m``.

        The config of a run is the starting point of a command, so it cannot be varied within one.
        """
        runs: list[str] = []
        for override in self.parsed:
            if override.key_or_group == "run" and override.is_sweep_override():
                runs = list(override.sweep_string_iterator())
        if not runs or not self.is_sweep:
            return [self]
        others = [word for word in self.overrides if not word.startswith("run=")]
        varies_more = any(
            override.is_sweep_override() and override.key_or_group != "run"
            for override in self.parsed
        )
        flags = self.flags if varies_more else tuple(self.single_run_flags)
        return [replace(self, flags=flags, overrides=(*others, f"run={run}")) for run in runs]

    def with_overrides(self, overrides: Sequence[str]) -> CommandLine:
        """Return a copy with other overrides, already quoted."""
        return replace(self, overrides=tuple(overrides))


def _quote_paths(
    word: str,
    folders: Sequence[Path],
    *,
    is_sweep: bool,
) -> str:
    """Quote the value of a key of a path, and expand ``~`` in it; or that of another text."""
    key, equals, value = word.partition("=")
    if not equals or value in NULL_VALUES or value[:1] in ("'", '"', "["):
        return word
    if key.lstrip("+") in find_text_keys(tuple(folders)):
        return f"{key}={quote_value(value)}"
    if key.lstrip("+") not in find_path_keys(tuple(folders)):
        return word
    is_list = is_sweep and not expand_home(value).exists()
    values = value.split(",") if is_list else [value]
    return f"{key}=" + ",".join(_quote_path(value) for value in values)


def _quote_path(value: str) -> str:
    if value in NULL_VALUES:
        return value
    path = expand_home(value) if value.startswith("~") else Path(value)
    if "/" in value and path.exists():
        value = str(path.absolute())  # the run folder must not depend on the working directory
    elif value.startswith("~"):
        value = str(path)
    return quote_value(value)


def quote_value(value: str) -> str:
    """Quote a value in Hydra's grammar."""
    # A backslash escapes a quote, and itself only before one.
    value = re.sub(r"(\\*)'", r"\1\1\\'", value)
    trailing = len(value) - len(value.rstrip("\\"))
    return "'" + value + trailing * "\\" + "'"
