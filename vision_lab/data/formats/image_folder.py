"""``data=folder``: a folder of pictures with one sub-folder for each class. No torch here: app reads it too."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Literal

from vision_lab.core.errors import DataError
from vision_lab.core.text import is_utf8, summarize_names

EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".png",
        ".bmp",
        ".tif",
        ".tiff",
        ".webp",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
    ]
)
"""What a file's name ends with (in small letters) where a folder's pictures are looked for."""

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabeledImages:
    """A map-style data set of (path, label)."""

    paths: Sequence[Path]
    targets: Sequence[int]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Path, int]:
        return self.paths[index], self.targets[index]


@dataclass(frozen=True)
class UnlabeledImages:
    """A map-style data set of (path, None): pictures of which nothing is known."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Path, None]:
        return self.paths[index], None

    @property
    def samples(self) -> list[tuple[Path, None]]:
        """What they are, without opening any."""
        return [(path, None) for path in self.paths]


def class_names(root: str) -> list[str]:
    """The names of the classes: the sub-folders of ``root``, or of ``root/train`` where there is one, sorted.

    Raises:
        DataError: where there is no such folder, or it has no sub-folders.
    """
    folder = _split_folder(_require_dir(root), "train") or _require_dir(root)
    names = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )
    strange = [name for name in names if not is_utf8(name)]
    if strange:
        raise DataError(
            f"{folder} has sub-folders whose names are not UTF-8: {summarize_names(strange, 5)}: rename them"
        )
    if not names:
        raise DataError(
            f"{folder} has no sub-folders: data=folder takes one sub-folder of pictures for each class; for pictures "
            "without classes (task=generate), type data=images"
        )
    return names


def image_folder(
    root: str, *, split: Literal["train", "val", "test"], folders: Sequence[str]
) -> LabeledImages | None:
    """The pictures of one split, sorted by class and path.

    A folder that has ``train/`` may have ``val/`` (or ``validation/``) and ``test/``; without ``train/`` all it holds
    is the training split.

    Args:
        root: the folder.
        split: which pictures.
        folders: the names of the sub-folders, in the order of the labels.

    Returns:
        None where the folder has no such split of its own.

    Raises:
        DataError: where a class has no pictures, or a split has a folder for a class that training does not know.
    """
    folder = _split_dir(split, _require_dir(root))
    if folder is None:
        return None
    unknown = sorted({entry.name for entry in folder.iterdir() if entry.is_dir()} - set(folders))
    unknown = [name for name in unknown if not name.startswith(".")]
    if unknown:
        raise DataError(
            f"{folder} has folders for classes that training does not know: {', '.join(unknown)}"
        )
    paths, targets, others = [], [], []
    for label, name in enumerate(folders):
        found, strange = _files(folder / name)
        others += strange
        if not found and split == "train":
            raise DataError(
                f"{folder / name} holds no pictures (files that end with {', '.join(sorted(EXTENSIONS))})"
            )
        paths += found
        targets += [label] * len(found)
    _warn_skipped(others, folder)
    return LabeledImages(paths, targets)


def unlabeled_images(
    root: str, *, split: Literal["train", "val", "test"]
) -> UnlabeledImages | None:
    """The pictures of one split, sorted by path, whatever sub-folders they lie in; splits as ``pictures`` has them.

    Args:
        root: the folder.
        split: which pictures.

    Returns:
        None where the folder has no such split of its own.

    Raises:
        DataError: where the folder holds no pictures.
    """
    folder = _split_dir(split, _require_dir(root, of="pictures"))
    if folder is None:
        return None
    found, others = _files(folder)
    if not found:
        raise DataError(
            f"{folder} holds no pictures (files that end with {', '.join(sorted(EXTENSIONS))})"
        )
    _warn_skipped(others, folder)
    return UnlabeledImages(found)


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """All files below a folder, sorted: those that are named as pictures, and the others; nothing that is hidden."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not _is_hidden(path.relative_to(folder))
    )
    named = [path.suffix.lower() in EXTENSIONS for path in files]
    return list(compress(files, named)), [
        path for path, is_named in zip(files, named, strict=True) if not is_named
    ]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _warn_skipped(others: Sequence[Path], folder: Path) -> None:
    if others:
        shown = summarize_names([str(path.relative_to(folder)) for path in others], 5)
        log.warning(
            "%s: left out %d files that are not named as pictures: %s", folder, len(others), shown
        )


def _require_dir(root: str, *, of: str = "one sub-folder for each class") -> Path:
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: type data.root=<folder with {of}>")
    return folder


def _split_dir(split: str, base: Path) -> Path | None:
    """Where a split lies: in its own folder, or, if ``train`` has none, all of it is training's."""
    if _split_folder(base, "train") is not None:
        return _split_folder(base, split)
    return base if split == "train" else None


def _split_folder(folder: Path, split: str) -> Path | None:
    return next((folder / name for name in SPLITS[split] if (folder / name).is_dir()), None)
