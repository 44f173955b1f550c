"""``data=imagenet``: ImageNet in the layouts that people have. Does not import torch.

Training images are in class folders named by WordNet ids, or in the official tar file of tar files.
Validation images are in such folders as well, or all in one folder or tar file; their classes are
then in one of the files that different distributions come with.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from vision_lab.core.documents import DocumentError, read_text
from vision_lab.core.errors import ConfigurationError, DataError
from vision_lab.core.files import read_bytes
from vision_lab.core.text import first_line, summarize_names
from vision_lab.data.formats.image_folder import (
    EXTENSIONS,
    LabeledImages,
    list_subfolders,
    read_class_folders,
)
from vision_lab.data.formats.layout import describe_content, require_root
from vision_lab.data.formats.tar_images import TarImages, list_images, list_tar_names, read_members

CONTENT = "ImageNet's train/ or ILSVRC2012_img_train.tar"

TRAIN_FOLDERS = ("train", "ILSVRC/Data/CLS-LOC/train", "Data/CLS-LOC/train")
"""Where training images are, below the root; the second is that of Kaggle's download."""

VAL_FOLDERS = ("val", "valid", "validation", "ILSVRC/Data/CLS-LOC/val", "Data/CLS-LOC/val")

TRAIN_TAR = "ILSVRC2012_img_train.tar"

VAL_TAR = "ILSVRC2012_img_val.tar"

DEVKIT = "ILSVRC2012_devkit_t12"
"""Name of the devkit, a folder or a file that ends with .tar.gz."""

GROUND_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
"""File of the devkit with a number from 1 for each validation image, in order of their names."""

META = "data/meta.mat"
"""File of the devkit with the WordNet id of each of these numbers."""

COMPRESSED = 15
"""Type of a compressed variable in a file of MATLAB's version 5."""

MAX_BYTES = 50_000_000
"""Maximum size of a list of classes, and of the devkit when it is inflated."""

MAX_LISTED = 5

Images = LabeledImages | TarImages


def class_folders(root: str, expected: int) -> list[str]:
    """Return the WordNet ids of the training images, sorted.

    Args:
        root: folder of the dataset.
        expected: number of classes.

    Raises:
        DataError: if there are no training images, or those of another number of classes.
    """
    folder = require_root(root, content=CONTENT)
    train = _find_train(folder)
    if train is not None:
        names = sorted(list_subfolders(train))
        source = train
    else:
        source = _require_train_tar(folder)
        names = list_tar_names(source)
    if len(names) != expected:
        raise DataError(
            f"{source} has {len(names)} classes, not {expected}: for a subset of the classes, type "
            f"their names in the order of their WordNet ids: data.spec.class_names=[...]"
        )
    return names


def labeled_images(
    root: str, *, split: Literal["train", "val", "test"], class_folders: Sequence[str]
) -> Images | None:
    """Create the dataset of a split.

    Args:
        root: folder with ``train/`` and ``val/``, the official tar files, or Kaggle's download.
        split: the split.
        class_folders: WordNet ids of the classes, in the order of the labels.

    Returns:
        The dataset; None if there is no such split.

    Raises:
        DataError: if images, or the classes of those of the validation split, are missing.
        ConfigurationError: if SciPy is required to read the devkit, and not installed.
    """
    folder = require_root(root, content=CONTENT)
    if split == "train":
        train = _find_train(folder)
        if train is not None:
            return read_class_folders(train, class_folders, requires_all=True)
        return _read_train_tar(_require_train_tar(folder), class_folders)
    if split == "test":
        return _read_test(folder, class_folders)
    val = _find(folder, VAL_FOLDERS)
    if val is not None:
        return _read_val_folder(val, folder, class_folders)
    if (folder / VAL_TAR).is_file():
        return _read_val_tar(folder / VAL_TAR, folder, class_folders)
    return None


def _find(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _find_train(root: Path) -> Path | None:
    """Return the folder of the training images, which may be the root."""
    return _find(root, TRAIN_FOLDERS) or (root if _has_class_folders(root) else None)


def _has_class_folders(folder: Path) -> bool:
    """Return whether a folder has subfolders that are named by WordNet ids."""
    return any(re.fullmatch(r"n\d+", path.name) for path in folder.glob("n*/"))


def _require_train_tar(root: Path) -> Path:
    file = root / TRAIN_TAR
    if not file.is_file():
        raise DataError(
            f"{root} has no training images, but {describe_content(root)}: type data.root=<folder "
            f"with {CONTENT}>"
        )
    return file


def _read_train_tar(file: Path, class_folders: Sequence[str]) -> TarImages:
    labels = {name: label for label, name in enumerate(class_folders)}
    members = [member for member in list_images(file) if member.name.split("/")[0] in labels]
    if not members:
        raise DataError(f"{file} contains no tar files of the classes, such as {class_folders[0]}")
    return TarImages(file, members, [labels[member.name.split("/")[0]] for member in members])


def _read_test(root: Path, class_folders: Sequence[str]) -> LabeledImages | None:
    """Read a test split in class folders; ImageNet's own has no public classes."""
    test = root / "test"
    if not _has_class_folders(test):
        return None
    return read_class_folders(test, class_folders, requires_all=False)


def _read_val_folder(val: Path, root: Path, class_folders: Sequence[str]) -> LabeledImages:
    has_images = any(path.suffix.lower() in EXTENSIONS for path in val.iterdir())
    if not _has_class_folders(val):
        return _read_flat_folder(val, root, class_folders)
    if has_images:
        raise DataError(
            f"{val} has images beside folders of classes: move all images into folders of their "
            "classes, or none"
        )
    return read_class_folders(val, class_folders, requires_all=False)


def _read_flat_folder(val: Path, root: Path, class_folders: Sequence[str]) -> LabeledImages:
    paths = []
    for path in sorted(val.iterdir()):
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith("."):
            paths.append(path)
    if not paths:
        raise DataError(f"{val} contains no images, but {describe_content(val)}")
    labels = _find_labels([path.name for path in paths], [root, val, val.parent], class_folders)
    return LabeledImages(paths, labels)


def _read_val_tar(file: Path, root: Path, class_folders: Sequence[str]) -> TarImages:
    members = list_images(file)
    names = [Path(member.name).name for member in members]
    return TarImages(file, members, _find_labels(names, [root], class_folders))


def _find_labels(
    names: Sequence[str], folders: Sequence[Path], class_folders: Sequence[str]
) -> list[int]:
    """Find the labels of validation images in the first file that has them.

    Args:
        names: file names of the images, sorted.
        folders: where the file may be.
        class_folders: WordNet ids of the classes.
    """
    stems = [Path(image).stem for image in names]
    labels = {name: label for label, name in enumerate(class_folders)}
    for folder in folders:
        for read_labels, name in LABEL_FILES:
            if (folder / name).exists():
                return _look_up(stems, read_labels(folder / name, labels), folder / name)
        for name in (DEVKIT, f"{DEVKIT}.tar.gz"):
            if (folder / name).exists():
                return _read_devkit(folder / name, stems, labels)
    raise DataError(
        f"the classes of the {len(names)} validation images, such as {names[0]}, are unknown: put "
        f"LOC_val_solution.csv, val.txt, {DEVKIT}/ or {DEVKIT}.tar.gz into {folders[0]}, or the "
        "images into folders named by the WordNet ids of their classes"
    )


def _look_up(stems: Sequence[str], labels: Mapping[str, int], file: Path) -> list[int]:
    missing = [stem for stem in stems if stem not in labels]
    if missing:
        raise DataError(
            f"{file} does not have the classes of {len(missing)} of {len(stems)} images: "
            f"{summarize_names(missing, MAX_LISTED)}"
        )
    return [labels[stem] for stem in stems]


def _read_kaggle(file: Path, labels: Mapping[str, int]) -> dict[str, int]:
    """Read ``LOC_val_solution.csv``: the name of an image, its WordNet id and boxes."""
    labels_by_stem: dict[str, int] = {}
    rows = csv.DictReader(io.StringIO(_read(file), newline=""))
    for row in rows:
        name = (row.get("PredictionString") or "").partition(" ")[0]
        if name not in labels:
            raise DataError(f"{file}: line {rows.line_num} has the class {name!r}, unlike train")
        labels_by_stem[str(row.get("ImageId"))] = labels[name]
    return labels_by_stem


def _read_list(file: Path, labels: Mapping[str, int]) -> dict[str, int]:
    """Read ``val.txt``: the name of an image, and its label from 0 or its WordNet id."""
    labels_by_stem: dict[str, int] = {}
    for number, line in enumerate(_read(file).splitlines(), 1):
        if not line.strip():
            continue
        name, _, text = line.strip().rpartition(" ")
        is_number = text.isascii() and text.isdigit() and len(text) < 10
        label = labels.get(text, int(text) if is_number else -1)
        if not name or not 0 <= label < len(labels):
            raise DataError(
                f"{file}: line {number} has the label {text!r}: each line must have the name of an "
                f"image and a label from 0 to {len(labels) - 1}, or a WordNet id"
            )
        labels_by_stem[Path(name).stem] = label
    return labels_by_stem


def _read_devkit(file: Path, stems: Sequence[str], labels: Mapping[str, int]) -> list[int]:
    """Read the devkit: numbers of classes in order of the images, and their WordNet ids."""
    if file.is_dir():
        truth = _read(file / GROUND_TRUTH)
        try:
            meta = read_bytes(file / META, max_bytes=MAX_BYTES)
        except (OSError, ValueError) as error:
            raise DataError(f"{file / META} cannot be read: {first_line(error)}") from error
    else:
        truth, meta = _read_devkit_tar(file)
    names = _read_meta(meta, file)
    numbers = truth.split()
    if len(numbers) != len(stems):
        raise DataError(
            f"{file} has the classes of {len(numbers)} images, but there are {len(stems)}: put all "
            "validation images into the folder"
        )
    found = []
    for stem, number in zip(stems, numbers, strict=True):
        name = names.get(int(number) if number.isdigit() else -1, number)
        if name not in labels:
            raise DataError(f"{file}: {stem} has the class {name}, unlike train")
        found.append(labels[name])
    return found


def _read_devkit_tar(file: Path) -> tuple[str, bytes]:
    try:
        with gzip.open(file) as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        contents = {}
        for member in read_members(io.BytesIO(content), 0, len(content)):
            name = member.name.removeprefix("./").removeprefix(f"{DEVKIT}/")
            contents[name] = content[member.start : member.start + member.size]
        return contents[GROUND_TRUTH].decode(errors="replace"), contents[META]
    except Exception as error:  # gzip and tarfile raise any exception for damaged files
        raise DataError(f"{file} is not ImageNet's devkit: {first_line(error)}") from error


def _read_meta(content: bytes, file: Path) -> dict[int, str]:
    """Read the WordNet id of each number."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ConfigurationError(
            f"{file}: its {META} requires SciPy: type pip install scipy, or put val.txt or "
            "LOC_val_solution.csv beside it"
        ) from error
    try:
        _check_inflated_size(content)
        synsets = loadmat(io.BytesIO(content), squeeze_me=True)["synsets"]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    except Exception as error:  # SciPy raises any exception for damaged files
        raise DataError(f"{file}: {META} cannot be read: {first_line(error)}") from error


def _check_inflated_size(content: bytes) -> None:
    """Check the size of the compressed variables of a MATLAB file, which SciPy reads as a whole.

    After 128 bytes, of which the last two tell the order of bytes, each has its type and size.
    """
    order = "<" if content[126:128] == b"IM" else ">"
    position = 128
    while position + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, position)
        position += 8
        if kind == COMPRESSED:
            variable = content[position : position + size]
            if len(zlib.decompressobj().decompress(variable, MAX_BYTES)) == MAX_BYTES:
                raise ValueError(f"a variable has more than {MAX_BYTES:,} bytes")
        position += size


def _read(file: Path) -> str:
    try:
        return read_text(file, max_bytes=MAX_BYTES).removeprefix("\ufeff")  # written by Excel
    except (DocumentError, OSError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


LabelReader = Callable[[Path, Mapping[str, int]], Mapping[str, int]]

LABEL_FILES: tuple[tuple[LabelReader, str], ...] = (
    (_read_kaggle, "LOC_val_solution.csv"),
    (_read_list, "val.txt"),
)
"""Functions that read the labels of validation images by name, and the files that they read."""
