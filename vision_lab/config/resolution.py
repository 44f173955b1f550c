"""A composed config whose references are followed once: what is checked is the very object that is built from.

OmegaConf follows a reference each time it is looked at, and what it leads to may have changed meanwhile (an
environment variable, a key that was deleted). And text that a resolver has read from a file may itself look like a
reference. So the whole config is made into plain dictionaries, lists, text and numbers here, and nothing is followed
afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vision_lab.core.errors import ConfigurationError, UserError
from vision_lab.core.text import first_line

MAX_DEPTH = 50
"""Levels of nodes in a config."""

MAX_NODES = 100_000
"""Values in a config whose references are followed, lists that are read from files not counted."""


KEY_REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
"""A value that is a reference to a key and nothing else."""


class FileStrings(ListConfig):
    """Strings that a resolver has read from files: no part of them is ever taken for a reference.

    Attributes:
        strings: as the files have them.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        listed = [str(string) for string in strings]
        # What OmegaConf itself sees (``--cfg job --resolve``) is escaped, so that it too leaves it alone.
        super().__init__([re.sub(r"(\\*)\$\{", r"\1\1\\${", string) for string in listed])
        self.__dict__["strings"] = listed


@dataclass(frozen=True)
class Unresolved:
    """Stands in a config for a value that is missing, or whose reference leads nowhere.

    Attributes:
        reason: what to say of it, after its key; None if another key is to blame.
        is_whole: whether ``reason`` says all by itself.
    """

    reason: str | None
    is_whole: bool = False


@dataclass(frozen=True)
class Config:
    """A config in plain values, and what is known of where it comes from.

    Attributes:
        values: group or plain key: plain values, or ``Unresolved``.
        source: the same with its references, as YAML.
        choices: group: the choice made, on the command line or by the run that ``run=`` names.
        from_run: groups that were left to the run of ``run=`` or ``resume=``.
        overrides: the words of the command line.
        referenced: part: keys of it that others of its keys point at.
        origins: dotted key of a value that is a reference: the key that it refers to.
    """

    values: dict[str, Any]
    source: str = ""
    choices: Mapping[str, str | None] = field(default_factory=dict)
    from_run: frozenset[str] = frozenset()
    overrides: tuple[str, ...] = ()
    referenced: Mapping[str, frozenset[str]] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def origin(self, path: str) -> str:
        """Return the key that a value was typed for: of a reference, the one that it leads to."""
        for _ in range(MAX_DEPTH):
            path = self.origins.get(path, path)
        return path

    def updated(self, changes: Mapping[str, Any]) -> Config:
        """Return a copy with other values at some dotted keys, and where those are referred to."""
        values = deepcopy(self.values)
        for key, value in changes.items():
            for path in [key, *(path for path in self.origins if self.origin(path) == key)]:
                _replace(values, path, value)
        return replace(self, values=values)


def resolve_config(
    config: DictConfig,
    *,
    choices: Mapping[str, str | None] | None = None,
    from_run: Iterable[str] = (),
    overrides: Sequence[str] = (),
) -> Config:
    """Follow all references of a composed config, once.

    Args:
        config: as Hydra composed it.
        choices: see ``Config``.
        from_run: likewise.
        overrides: likewise.

    Raises:
        ConfigurationError: if it refers to itself, or is larger than any real one.
    """
    resolver = _Resolver()
    return Config(
        values=resolver.resolve(config),
        source=OmegaConf.to_yaml(config),
        choices=dict(choices or {}),
        from_run=frozenset(from_run),
        overrides=tuple(overrides),
        origins=resolver.origins,
        referenced={
            str(part): _referenced(config, str(part)) for part in config if isinstance(part, str)
        },
    )


def words_of_job(hydra_config: Any) -> list[str]:
    """Return the words of the command line that a job was composed from, references in them not followed.

    Args:
        hydra_config: the ``hydra`` node of its config.
    """
    words: Any = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
    return [str(word) for word in words]


def _replace(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    node: Any = values
    for parent in parents:
        node = node[int(parent)] if isinstance(node, list) else (node or {}).get(parent)
    if isinstance(node, dict):
        node[last] = value
    elif isinstance(node, list):
        node[int(last)] = value


class _Resolver:
    def __init__(self) -> None:
        self.count = 0
        self.origins: dict[str, str] = {}

    def resolve(self, node: Any, path: str = "") -> Any:
        self.count += 1
        if self.count > MAX_NODES or path.count(".") > MAX_DEPTH:
            raise ConfigurationError(
                f"{path[:80]}...: this refers to itself, or is larger than any config"
            )
        if isinstance(node, FileStrings):
            return list(node.__dict__["strings"])
        if isinstance(node, DictConfig):
            return {
                str(key): self._value(node, key, f"{path}.{key!s}" if path else str(key))
                for key in node
            }
        if isinstance(node, ListConfig):
            return [self._value(node, index, f"{path}.{index}") for index in range(len(node))]
        if isinstance(node, tuple | list):  # from a resolver of a user's own
            return [self.resolve(inner, f"{path}.{index}") for index, inner in enumerate(node)]
        return node

    def _value(self, node: DictConfig | ListConfig, key: Any, path: str) -> Any:
        raw = node._get_node(key)
        reference = KEY_REFERENCE.fullmatch(str(raw._value())) if isinstance(raw, Node) else None
        if reference:
            self.origins[path] = reference[1]
        if OmegaConf.is_missing(node, key):
            return Unresolved("is missing")
        try:
            value = node[key]
        except (OmegaConfBaseException, UserError) as error:
            return _unresolved(error)
        return self.resolve(value, path)


def find_unresolved(values: Any, path: str) -> list[str]:
    """List what is missing below a key, and references that lead nowhere, with what to type."""
    if isinstance(values, Unresolved):
        if values.reason is None:
            return []
        typed = f": type {path}=..." if values.reason == "is missing" else ""
        return [values.reason if values.is_whole else f"{path} {values.reason}{typed}"]
    if isinstance(values, dict):
        return [
            error
            for key, value in values.items()
            for error in find_unresolved(value, f"{path}.{key}")
        ]
    if isinstance(values, list):
        return [
            error
            for index, value in enumerate(values)
            for error in find_unresolved(value, f"{path}.{index}")
        ]
    return []


def printable(values: Any) -> Any:
    """Return values with ``???`` for those that are missing or whose references lead nowhere."""
    if isinstance(values, dict):
        return {key: printable(value) for key, value in values.items()}
    if isinstance(values, list):
        return [printable(value) for value in values]
    return "???" if isinstance(values, Unresolved) else values


def _unresolved(error: BaseException) -> Unresolved:
    """What is said of a reference that leads nowhere: a resolver of ours says all; else OmegaConf's words."""
    if "MissingMandatoryValue" in str(error) or "Missing mandatory value" in str(error):
        return Unresolved(None)  # it is said of the value that is missing
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return Unresolved(str(cause), is_whole=True)
        cause = cause.__cause__ or cause.__context__
    return Unresolved(f"cannot be resolved: {first_line(error)}")


def _referenced(config: DictConfig, part: str) -> frozenset[str]:
    node = config._get_node(part)
    if (
        not isinstance(node, DictConfig)
        or node._is_none()
        or node._is_interpolation()
        or node._is_missing()
    ):
        return frozenset()
    return frozenset(re.findall(rf"\${{{re.escape(part)}\.(\w+)", OmegaConf.to_yaml(node)))
