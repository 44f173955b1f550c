"""Where the files of a split are, for datasets in folders.

Does not import torch, because resolvers read class names with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vision_lab.core.errors import DataError
from vision_lab.core.files import expand_home

SPLITS = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
"""Names of the folder of each split."""


def require_root(root: str, *, content: str) -> Path:
    """Return the folder of a dataset.

    Args:
        root: the folder, as typed.
        content: what it must contain, for the error.

    Raises:
        DataError: if there is no such folder.
    """
    folder = expand_home(root)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: type data.root=<folder with {content}>")
    return folder


def expand_split(split: str, patterns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield relative paths in which the files of a split may be, the usual names first.

    Args:
        split: train, val or test.
        patterns: relative paths with ``{split}`` in place of the split.

    Yields:
        The path, and the name of the split in it.
    """
    for name in SPLITS[split]:
        for pattern in patterns:
            yield pattern.replace("{split}", name), name


def find_split(
    root: Path,
    split: str,
    *,
    patterns: Sequence[str] = ("{split}",),
    whole: str | None = ".",
) -> Path | None:
    """Find the folder of a split.

    Args:
        root: folder of the dataset.
        split: train, val or test.
        patterns: relative paths with ``{split}`` in place of the split.
        whole: the folder that is the training split if there is no folder for it; None if there
            must be one.

    Returns:
        The folder; None if there is no such split.
    """
    if whole is not None and _first_folder(root, "train", patterns) is None:
        is_whole = split == "train" and (root / whole).is_dir()
        return root / whole if is_whole else None
    return _first_folder(root, split, patterns)


def divide_by_split(names: Sequence[str]) -> dict[str, list[str]]:
    """Divide names of files by the split that is a word of them, such as ``cc-train-0001.tar``.

    Args:
        names: names, or relative paths: the innermost folder with a split counts if the name of
            the file has none.

    Returns:
        The names of each split, in their order. If no name has a split, all are of train.
    """
    names_by_split: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in names:
        split = _find_split_word(name)
        if split is not None:
            names_by_split[split].append(name)
    if not any(names_by_split.values()):
        names_by_split["train"] = list(names)
    return names_by_split


def _find_split_word(path: str) -> str | None:
    """Return the split that is a word of a path."""
    for part in reversed(Path(path).parts):
        for word in re.findall(r"[a-z]+", part.lower()):
            for split, names in SPLITS.items():
                if word in names:
                    return split
    return None


def describe_content(folder: Path, limit: int = 5) -> str:
    """Return the first names in a folder, for errors.

    Args:
        folder: the folder.
        limit: maximum number of names.
    """
    return ", ".join(sorted(path.name for path in folder.iterdir())[:limit]) or "nothing"


def _first_folder(root: Path, split: str, patterns: Sequence[str]) -> Path | None:
    for path, _ in expand_split(split, patterns):
        if (root / path).is_dir():
            return root / path
    return None
