"""``data=folder``: a folder of images with one subfolder for each class.

Does not import torch, because resolvers read class names with it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vision_lab.core.errors import DataError
from vision_lab.core.text import is_utf8, summarize_names
from vision_lab.data.formats.layout import find_split, require_root

EXTENSIONS = frozenset(".jpg .jpeg .jpe .png .bmp .tif .tiff .webp .gif .ppm .pgm .pbm".split())
"""Suffixes of image files, in lower case."""

EXTENSIONS_TEXT = ", ".join(sorted(EXTENSIONS))

CLASS_FOLDERS = "one subfolder for each class"
"""Content of the folder of a dataset, for errors."""

MAX_LISTED = 5
"""Maximum number of files listed in a message."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabeledImages:
    """A map-style dataset of (path, label)."""

    paths: Sequence[Path]
    targets: Sequence[int]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Path, int]:
        return self.paths[index], self.targets[index]


@dataclass(frozen=True)
class UnlabeledImages:
    """A map-style dataset of (path, None)."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Path, None]:
        return self.paths[index], None

    @property
    def samples(self) -> list[tuple[Path, None]]:
        """The samples; see ``fingerprint``."""
        return [(path, None) for path in self.paths]


def class_names(root: str) -> list[str]:
    """Return the names of the subfolders of ``root/train``, or of ``root`` without it, sorted.

    Args:
        root: folder of the dataset.

    Raises:
        DataError: if there is no such folder, or it has no subfolders.
    """
    folder = find_split(require_root(root, content=CLASS_FOLDERS), "train")
    assert folder is not None
    names = sorted(list_subfolders(folder))
    not_utf8 = []
    for name in names:
        if not is_utf8(name):
            not_utf8.append(name)
    if not_utf8:
        raise DataError(
            f"{folder} has subfolders whose names are not UTF-8: "
            f"{summarize_names(not_utf8, MAX_LISTED)}: rename them"
        )
    if not names:
        raise DataError(
            f"{folder} has no subfolders: data=folder requires one subfolder of images for each "
            "class; for images without classes, type data=images"
        )
    return names


def image_folder(
    root: str, *, split: Literal["train", "val", "test"], class_folders: Sequence[str]
) -> LabeledImages | None:
    """Create the dataset of a split, sorted by class and path.

    A folder with ``train/`` may have ``val/`` (or ``validation/``) and ``test/``; without
    ``train/``, the whole folder is the training split.

    Args:
        root: folder of the dataset.
        split: the split.
        class_folders: names of the class folders, in the order of the labels.

    Returns:
        The dataset; None if there is no such split.

    Raises:
        DataError: if a class has no training images, or a split has a class that train has not.
    """
    folder = find_split(require_root(root, content=CLASS_FOLDERS), split)
    if folder is None:
        return None
    unknown = sorted(list_subfolders(folder) - set(class_folders))
    if unknown:
        raise DataError(
            f"{folder} has folders for classes that train does not have: {', '.join(unknown)}"
        )
    return read_class_folders(folder, class_folders, requires_all=split == "train")


def read_class_folders(
    folder: Path, class_folders: Sequence[str], *, requires_all: bool
) -> LabeledImages:
    """Create the dataset of the images in class folders, sorted by class and path.

    Args:
        folder: the folder.
        class_folders: names of the class folders, in the order of the labels.
        requires_all: whether each class must have images.

    Raises:
        DataError: if a class has no images but must have some.
    """
    paths, targets, skipped = [], [], []
    for label, name in enumerate(class_folders):
        images, others = _list_files(folder / name)
        if not images and requires_all:
            raise DataError(f"{folder / name} contains no images (suffixes {EXTENSIONS_TEXT})")
        paths += images
        targets += [label] * len(images)
        skipped += others
    _warn_skipped(skipped, folder)
    return LabeledImages(paths, targets)


def unlabeled_images(
    root: str, *, split: Literal["train", "val", "test"]
) -> UnlabeledImages | None:
    """Create the dataset of a split without labels, sorted by path, from any subfolders.

    Args:
        root: folder of the dataset; for its splits see ``image_folder``.
        split: the split.

    Returns:
        The dataset; None if there is no such split.

    Raises:
        DataError: if the folder contains no images.
    """
    folder = find_split(require_root(root, content="images"), split)
    if folder is None:
        return None
    images, others = _list_files(folder)
    if not images:
        raise DataError(f"{folder} contains no images (suffixes {EXTENSIONS_TEXT})")
    _warn_skipped(others, folder)
    return UnlabeledImages(images)


def list_subfolders(folder: Path) -> set[str]:
    """Return the names of the subfolders of a folder, without hidden ones."""
    names = set()
    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            names.add(path.name)
    return names


def _list_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the images below a folder and the other files, both sorted, without hidden ones."""
    images: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not is_hidden:
            is_image = path.suffix.lower() in EXTENSIONS
            (images if is_image else others).append(path)
    return images, others


def _warn_skipped(files: Sequence[Path], folder: Path) -> None:
    if files:
        names = [str(path.relative_to(folder)) for path in files]
        log.warning(
            "%s: skipped %d files without an image suffix: %s",
            folder,
            len(files),
            summarize_names(names, MAX_LISTED),
        )
