"""Config groups and their options, read from ``conf/`` and ``--config-dir`` without Hydra."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parents[1]
CONFIG_DIR = PACKAGE_DIR / "conf"
"""Configs inside an installed package; in a checkout they are beside it."""
if not CONFIG_DIR.is_dir():
    CONFIG_DIR = PACKAGE_DIR.parent / "conf"

GROUP_ORDER = (
    "task model head loss data sampler augment diffaugment features optimizer scheduler trainer "
    "callbacks logger mode search experiment debug hydra"
).split()
"""Order of the groups in ``--help``; a user's own groups come last."""


@dataclass(frozen=True)
class ConfigOption:
    """An option of a config group.

    Attributes:
        name: the option's name, as in ``model=<name>``.
        file: its YAML file.
    """

    name: str
    file: Path

    @property
    def summary(self) -> str:
        """The first comment of the file, which describes the option in one line."""
        for line in self.file.read_text(encoding="utf-8").splitlines():
            comment = line.removeprefix("#").strip()
            if line.startswith("#") and comment and not comment.startswith("@package"):
                return comment
        return ""

    @property
    def target_types(self) -> tuple[str, ...]:
        """The ``target_type`` of the file, or of its first default that has one.

        Any of labels, masks, boxes and none; empty for models that are backbones.
        """
        for text in self.texts():
            match = re.search(r"^\s*target_type: *(?:\$\{one_of:\[)?([\w,]+)", text, re.MULTILINE)
            if match:
                return tuple(match[1].split(","))
        return ()

    def texts(self) -> list[str]:
        """Return the text of the file, and those of the files that it is based on."""
        text = self.file.read_text(encoding="utf-8")
        texts = [text]
        for name in re.findall(r"^ *(?:- |defaults: \[)(\w+)\]?$", text, re.MULTILINE):
            base = ConfigOption(name, self.file.with_name(f"{name}.yaml"))
            if base.file.is_file():
                texts += base.texts()
        return texts


def find_groups(folders: Iterable[Path]) -> dict[str, list[ConfigOption]]:
    """Find the config groups in some folders.

    Args:
        folders: config folders; an option in a later folder replaces one of the same name.

    Returns:
        The options by group, in natural order. Files whose names start with ``_`` are not options:
        they contain defaults that several options share.
    """
    options: dict[str, dict[str, ConfigOption]] = {}
    for folder in folders:
        for file in folder.glob("*/*.yaml"):
            if not file.name.startswith("_"):
                options.setdefault(file.parent.name, {})[file.stem] = ConfigOption(file.stem, file)
    names = []
    for group in GROUP_ORDER:
        if group in options:
            names.append(group)
    names += sorted(set(options) - set(names))
    return {group: sorted(options[group].values(), key=_natural_key) for group in names}


def _natural_key(option: ConfigOption) -> list[int | str]:
    """Return a sort key by which resnet18 precedes resnet101."""
    parts = re.split(r"(\d+)", option.name)
    return [int(part) if part.isdigit() else part for part in parts]


def find_path_keys(folders: tuple[Path, ...]) -> frozenset[str]:
    """Find the keys of paths, whose values may contain any characters.

    They are marked in YAML, by a comment that begins with ``# path``.

    Args:
        folders: config folders.
    """
    return _find_marked_keys(folders, "path")


def find_text_keys(folders: tuple[Path, ...]) -> frozenset[str]:
    """Find the keys of other texts of any characters, marked by ``# text``.

    Args:
        folders: config folders.
    """
    return _find_marked_keys(folders, "text")


@cache
def _find_marked_keys(folders: tuple[Path, ...], mark: str) -> frozenset[str]:
    keys: set[str] = set()
    for folder in folders:
        for file in [*folder.glob("*.yaml"), *folder.glob("*/*.yaml")]:
            text = file.read_text(encoding="utf-8")
            if f"# {mark}" not in text:
                continue
            group = "" if file.parent == folder else f"{file.parent.name}."
            is_global = text.startswith("# @package _global_")
            keys.update(f"{'' if is_global else group}{key}" for key in _marked_keys(text, mark))
    return frozenset(keys)


def _marked_keys(text: str, mark: str) -> Iterator[str]:
    """Yield the dotted keys whose comments begin with a mark."""
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = re.match(r"( *)([\w.]+):(.*)", line)
        if not match:
            continue
        indent = len(match[1])
        while parents and parents[-1][0] >= indent:
            parents.pop()
        parents.append((indent, match[2]))
        if re.search(rf" # {mark}\b", match[3]):
            yield ".".join(name for _, name in parents)
