"""Resolution of a composed config to plain values, exactly once.

OmegaConf resolves an interpolation on every access, and its value may have changed since it was
checked (an environment variable, a deleted key). Also, text that a resolver read from a file may
look like an interpolation. Here the whole config becomes plain dicts, lists, text and numbers: what
is validated is exactly what is built, and nothing is resolved afterwards.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vision_lab.core.errors import ConfigurationError, UserError
from vision_lab.core.text import first_line

MAX_DEPTH = 50
"""Maximum nesting depth of a config."""

MAX_NODES = 100_000
"""Maximum number of values in a config, without lists that are read from files."""

KEY_INTERPOLATION = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
"""A value that is the interpolation of a key and nothing else."""


class FileStrings(ListConfig):
    """Strings that a resolver has read from files; they are never resolved as interpolations.

    Attributes:
        strings: the strings, as they are in the files.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        strings = [str(string) for string in strings]
        # Escaped, so that OmegaConf itself returns them as text when one of them is accessed.
        super().__init__([re.sub(r"(\\*)\$\{", r"\1\1\\${", string) for string in strings])
        self.__dict__["strings"] = strings


@dataclass(frozen=True)
class Unresolved:
    """Placeholder for a value that is missing or whose interpolation cannot be resolved.

    Attributes:
        reason: the error, worded to follow the key; None if another key causes it.
        is_complete: whether ``reason`` is a complete message, without the key.
    """

    reason: str | None
    is_complete: bool = False


@dataclass(frozen=True)
class Config:
    """A resolved config and its origin.

    Attributes:
        values: plain values, or ``Unresolved``, by group or plain key.
        source: the config with its interpolations, as YAML.
        choices: chosen option by group, on the command line or in the run given by ``run=``.
        from_run: groups taken from the run given by ``run=`` or ``resume=``.
        overrides: overrides on the command line.
        referenced: keys of each group that other keys of the group interpolate.
        interpolations: dotted keys whose whole value is an interpolation, and the keys that they
            interpolate.
    """

    values: dict[str, Any]
    source: str = ""
    choices: Mapping[str, str | None] = field(default_factory=dict)
    from_run: frozenset[str] = frozenset()
    overrides: tuple[str, ...] = ()
    referenced: Mapping[str, frozenset[str]] = field(default_factory=dict)
    interpolations: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def origin(self, path: str) -> str:
        """Return the key whose value was interpolated at a dotted key, or that key itself."""
        for _ in range(MAX_DEPTH):
            path = self.interpolations.get(path, path)
        return path

    def updated(self, changes: Mapping[str, Any]) -> Config:
        """Return a copy with new values. Keys that interpolate a changed key are updated too.

        Args:
            changes: mapping from dotted key to new value.
        """
        values = deepcopy(self.values)
        for key, value in changes.items():
            dependents = []
            for dependent in self.interpolations:
                if self.origin(dependent) == key:
                    dependents.append(dependent)
            for changed in [key, *dependents]:
                _set_value(values, changed, value)
        return replace(self, values=values)


def resolve_config(
    config: DictConfig,
    *,
    choices: Mapping[str, str | None] | None = None,
    from_run: Iterable[str] = (),
    overrides: Sequence[str] = (),
) -> Config:
    """Resolve a composed config to plain values.

    Args:
        config: the config as composed by Hydra.
        choices: see ``Config``.
        from_run: see ``Config``.
        overrides: see ``Config``.

    Raises:
        ConfigurationError: if the config refers to itself, or exceeds ``MAX_NODES``.
    """
    resolver = _Resolver()
    values = resolver.resolve(config)
    return Config(
        values=values,
        source=OmegaConf.to_yaml(config),
        choices=dict(choices or {}),
        from_run=frozenset(from_run),
        overrides=tuple(overrides),
        interpolations=resolver.interpolations,
        referenced={group: frozenset(keys) for group, keys in resolver.referenced.items()},
    )


def job_overrides(hydra_config: Any) -> list[str]:
    """Return the overrides of a job, with interpolations unresolved.

    Args:
        hydra_config: the ``hydra`` node of the job's config.
    """
    overrides: Any = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
    return [str(override) for override in overrides]


def find_config_flags(hydra_config: Any) -> list[str]:
    """Return the flags by which a command has found its config.

    The words of this process may be of another program: a job may run in the worker of a cluster.

    Args:
        hydra_config: the ``hydra`` node of a job's or a sweep's config.
    """
    flags = []
    for source in hydra_config.runtime.config_sources:
        if source.provider == "command-line":
            flags += ["--config-dir", str(source.path)]
    return flags


def find_unresolved(values: Any, path: str) -> list[str]:
    """Return an error message for each unresolved value, with what to type.

    Args:
        values: plain values.
        path: dotted key of the values.
    """
    if isinstance(values, Unresolved):
        if values.reason is None:
            return []
        advice = f": type {path}=..." if values.reason == "is missing" else ""
        return [values.reason if values.is_complete else f"{path} {values.reason}{advice}"]
    errors = []
    for key, value in _items(values):
        errors += find_unresolved(value, f"{path}.{key}")
    return errors


def to_printable(values: Any) -> Any:
    """Return a copy of plain values with ``???`` in place of unresolved ones."""
    if isinstance(values, dict):
        return {key: to_printable(value) for key, value in values.items()}
    if isinstance(values, list):
        return [to_printable(value) for value in values]
    if isinstance(values, Unresolved):
        return "???"
    return values


class _Resolver:
    def __init__(self) -> None:
        self.num_nodes = 0
        self.interpolations: dict[str, str] = {}
        self.referenced: defaultdict[str, set[str]] = defaultdict(set)

    def resolve(
        self,
        node: Any,
        path: str = "",
    ) -> Any:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES or path.count(".") > MAX_DEPTH:
            raise ConfigurationError(f"{path[:80]}...: this key refers to itself, or is too large")
        if isinstance(node, FileStrings):
            return list(node.__dict__["strings"])
        if isinstance(node, DictConfig):
            prefix = f"{path}." if path else ""
            return {str(key): self._resolve_item(node, key, f"{prefix}{key!s}") for key in node}
        if isinstance(node, ListConfig):
            indices = range(len(node))
            return [self._resolve_item(node, index, f"{path}.{index}") for index in indices]
        if isinstance(node, tuple | list):  # returned by a user's resolver
            return [self.resolve(item, f"{path}.{index}") for index, item in enumerate(node)]
        return node

    def _resolve_item(
        self,
        node: DictConfig | ListConfig,
        key: Any,
        path: str,
    ) -> Any:
        raw = node._get_node(key)
        raw_value = raw._value() if isinstance(raw, Node) else None
        if isinstance(raw_value, str) and "${" in raw_value:
            self._record_interpolations(raw_value, path)
        if OmegaConf.is_missing(node, key):
            return Unresolved("is missing")
        try:
            value = node[key]
        except (OmegaConfBaseException, UserError) as error:
            return _explain_unresolved(error)
        return self.resolve(value, path)

    def _record_interpolations(self, raw_value: str, path: str) -> None:
        match = KEY_INTERPOLATION.fullmatch(raw_value)
        if match:
            self.interpolations[path] = match[1]
        group = path.partition(".")[0]
        self.referenced[group].update(re.findall(rf"\${{{re.escape(group)}\.(\w+)", raw_value))


def _explain_unresolved(error: BaseException) -> Unresolved:
    """Convert an error to a message: that of our own resolvers is complete, OmegaConf's is not."""
    if "MissingMandatoryValue" in str(error) or "Missing mandatory value" in str(error):
        return Unresolved(None)  # reported for the missing value itself
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return Unresolved(str(cause), is_complete=True)
        cause = cause.__cause__ or cause.__context__
    return Unresolved(f"cannot be resolved: {first_line(error)}")


def _items(values: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(values, dict):
        return values.items()
    if isinstance(values, list):
        return enumerate(values)
    return ()


def _set_value(
    values: dict[str, Any],
    path: str,
    value: Any,
) -> None:
    *parents, last = path.split(".")
    node: Any = values
    for parent in parents:
        node = node[int(parent)] if isinstance(node, list) else (node or {}).get(parent)
    if isinstance(node, dict):
        node[last] = value
    elif isinstance(node, list):
        node[int(last)] = value
