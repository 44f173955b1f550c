"""What can be chosen: the groups and files of ``conf/`` and of a user's ``--config-dir``, read without Hydra."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parents[1]
CONFIG_DIR = (
    PACKAGE_DIR / "conf" if (PACKAGE_DIR / "conf").is_dir() else PACKAGE_DIR.parent / "conf"
)
"""``conf/`` travels inside an installed package; in a checkout it lies beside it."""

ORDER = "task model head data augment optimizer scheduler trainer callbacks logger mode experiment debug hydra".split()


@dataclass(frozen=True)
class ConfigOption:
    """One file of a group."""

    name: str
    file: Path

    @property
    def summary(self) -> str:
        """The first comment of the file: its one-line meaning."""
        with self.file.open(encoding="utf-8") as lines:
            comments = (line[1:].strip() for line in lines if line.startswith("#"))
            return next(
                (comment for comment in comments if comment and not comment.startswith("@package")),
                "",
            )

    @property
    def target_types(self) -> tuple[str, ...]:
        """What a file of data, head or task, or one it begins with, says it is for: labels, masks, boxes or none."""
        text = self.file.read_text(encoding="utf-8")
        if found := re.search(r"^\s*target: *(?:\$\{one_of:\[)?([\w,]+)", text, re.MULTILINE):
            return tuple(found[1].split(","))
        others = (
            self.file.with_name(f"{name}.yaml")
            for name in re.findall(r"^ *- (\w+)$", text, re.MULTILINE)
        )
        return next(
            (
                targets
                for other in others
                if other.is_file()
                if (targets := ConfigOption("", other).target_types)
            ),
            (),
        )


def groups(folders: Iterable[Path]) -> dict[str, list[ConfigOption]]:
    """group: its choices, over all config folders; files whose names begin with ``_`` are parts of others."""
    found: dict[str, dict[str, ConfigOption]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*/*.yaml")):
            if not file.name.startswith("_"):
                found.setdefault(file.parent.name, {})[file.stem] = ConfigOption(file.stem, file)
    known = [group for group in ORDER if group in found]
    return {
        group: sorted(found[group].values(), key=_natural)
        for group in known + sorted(set(found) - set(known))
    }


def config_folders(words: Sequence[str]) -> list[Path]:
    """``conf/`` and what ``--config-dir`` names among the words of a command line."""
    folders = [CONFIG_DIR]
    for place, word in enumerate(words):
        if word in ("--config-dir", "-cd") and place + 1 < len(words):
            folders.append(Path(words[place + 1]))
        elif word.startswith("--config-dir="):
            folders.append(Path(word.split("=", 1)[1]))
    return folders


def _natural(choice: ConfigOption) -> list[tuple[int, str]]:
    """So that resnet18 comes before resnet101."""
    parts, digits = [], ""
    for letter in choice.name + " ":
        if letter.isdigit():
            digits += letter
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, letter))
    return parts
