"""Boxes in text files, one for each image, in YOLO's format.

A line is ``class x y width height`` in fractions of the image, with x and y of the box's center; or
a polygon, ``class x1 y1 x2 y2 ...``, whose bounding box is used. Does not import torch, because
resolvers read class names with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vision_lab.core.documents import DocumentError, read_text, read_yaml
from vision_lab.core.errors import AnnotationIssue, DataError
from vision_lab.core.spec import MAX_CLASSES
from vision_lab.core.text import summarize_names
from vision_lab.data.formats.image_folder import EXTENSIONS, EXTENSIONS_TEXT
from vision_lab.data.formats.layout import SPLITS, describe_content, find_split, require_root

if TYPE_CHECKING:
    from vision_lab.data.formats.box_dataset import BoxAnnotation, BoxDataset

PATTERNS = ("{split}/images", "images/{split}", "{split}2017/images", "images/{split}2017")
"""Folders of images; those with a year are converted from COCO."""

DATA_YAML_FILES = ("data.yaml", "data.yml", "dataset.yaml")

CLASS_NAME_FILES = (*DATA_YAML_FILES, "classes.txt", "obj.names", "labels/classes.txt")
"""Files with the class names, relative to the root."""

MAX_LISTED = 6
"""Maximum number of files listed in a message."""


def boxes(
    root: str,
    *,
    split: Literal["train", "val", "test"],
    class_names: Sequence[str],
    on_error: Literal["raise", "skip"],
) -> BoxDataset | None:
    """Create the dataset of a split; an image without a text file has no boxes.

    A split is where ``data.yaml`` says; or in ``images/<split>`` and ``labels/<split>``; or in
    ``<split>/images`` and ``<split>/labels``. Without any of these, ``images`` and ``labels`` are
    the training split.

    Args:
        root: folder of the dataset.
        split: the split.
        class_names: the class names, in the order of the labels.
        on_error: whether invalid boxes and files raise an error, or are clipped, dropped and
            listed.

    Returns:
        The dataset; None if there is no such split.

    Raises:
        DataError: if there are no images, no text file is valid, or ``on_error`` is "raise".
    """
    from vision_lab.data.formats.box_dataset import (
        RELATIVE_SIZE,
        ImageAnnotation,
        box_dataset,
    )

    folder = _find_image_dir(_find_base(root), split)
    if folder is None:
        return None
    annotations, issues = [], []
    for path in _list_images(folder):
        file = _label_file(path)
        try:
            rows = list(_read_boxes(file, class_names)) if file.is_file() else []
        except (ValueError, OSError) as error:
            problem = f"its text file cannot be read ({error}): it is skipped"
            issues.append(AnnotationIssue(str(path), str(file), problem))
            continue
        annotations.append(ImageAnnotation(path, rows, RELATIVE_SIZE, file))
    if not annotations:
        problems = [f"{issue.path}: {issue.problem}" for issue in issues]
        raise DataError(
            f"none of {len(issues)} text files can be read: {summarize_names(problems, MAX_LISTED)}"
        )
    return box_dataset(
        annotations, class_names=class_names, on_error=on_error, issues=issues, relative=True
    )


def _list_images(folder: Path) -> list[Path]:
    """Return the images below a folder, in order.

    Raises:
        DataError: if there are none, or none of them has a text file.
    """
    paths = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in EXTENSIONS and path.is_file():
            paths.append(path)
    if not paths:
        raise DataError(f"{folder} contains no images (suffixes {EXTENSIONS_TEXT})")
    if not any(_label_file(path).is_file() for path in paths):
        raise DataError(
            f"no image in {folder} has a text file; expected for example {_label_file(paths[0])}"
        )
    return paths


def class_names(root: str) -> list[str]:
    """Return the class names from ``data.yaml``, or from a text file with one name a line.

    Args:
        root: folder of the dataset.

    Raises:
        DataError: if there is neither.
    """
    base = _find_base(root)
    for name in CLASS_NAME_FILES:
        file = base / name
        if not file.is_file():
            continue
        if file.suffix in (".txt", ".names"):
            return _order_names(file, dict(enumerate(_read_lines(file))))
        names = _read_data_yaml(base).get("names")
        if isinstance(names, list):
            names = dict(enumerate(names))
        if isinstance(names, dict):
            return _order_names(file, names)
    raise DataError(
        f"{base} has no class names (searched {', '.join(CLASS_NAME_FILES)}): type "
        "data.spec.class_names=[...]"
    )


def _read_lines(file: Path) -> list[str]:
    try:
        content = read_text(file)
    except DocumentError as error:
        raise DataError(f"{file} is not a list of names: {error}") from error
    return [line.strip() for line in content.rstrip().splitlines()]


def _order_names(file: Path, names: dict[Any, Any]) -> list[str]:
    """Order names by their labels; labels without a name are called unused."""
    try:
        by_label = {}
        for label, name in names.items():
            if name not in (None, ""):
                by_label[int(label)] = _to_name(name)
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"{file}: names must be a list of text, or a mapping of integers to text"
        ) from None
    if not by_label or min(by_label) < 0:
        raise DataError(f"{file} contains no class names: it requires a line or entry for each")
    last = max(by_label)
    if last >= MAX_CLASSES:
        raise DataError(f"{file} has a class {last}: the maximum is {MAX_CLASSES:,} classes")
    return [by_label.get(label, f"unused {label}") for label in range(last + 1)]


def _to_name(name: Any) -> str:
    if not isinstance(name, str | int | float):
        raise TypeError
    return str(name)


def _find_base(root: str) -> Path:
    return require_root(root, content="images/, labels/ and data.yaml")


def _read_data_yaml(base: Path) -> dict[str, Any]:
    for name in DATA_YAML_FILES:
        file = base / name
        if file.is_file():
            try:
                content = read_yaml(file)
            except DocumentError as error:
                raise DataError(f"{file} cannot be read: {error}") from error
            if isinstance(content, dict):
                return content
            return {}
    return {}


def _find_image_dir(base: Path, split: str) -> Path | None:
    """Return the folder with the images of a split; None if there is no such split."""
    for folder in _list_configured_dirs(base, split):
        if folder.is_dir():
            return folder
    found = find_split(base, split, patterns=PATTERNS, whole="images")
    if found is None and split == "train":
        raise DataError(
            f"{base} has no folder images/ or train/images/: it contains {describe_content(base)}"
        )
    return found


def _list_configured_dirs(base: Path, split: str) -> list[Path]:
    """Return the folders in which the entry of a split in ``data.yaml`` may be found."""
    settings = _read_data_yaml(base)
    for name in SPLITS[split]:
        entry = settings.get(name)
        if not entry:
            continue
        if not isinstance(entry, str) or entry.endswith(".txt"):
            raise DataError(
                f"data.yaml in {base} has {split}: {entry}; it must be a folder, not a list"
            )
        # The dataset may have been moved: the entry is first searched relative to data.yaml.
        # Roboflow writes '../' before a folder that is beside the file.
        original = Path(str(settings.get("path") or "")) / entry
        return [base / entry, base / entry.removeprefix("../"), base / original]
    return []


def _label_file(image: Path) -> Path:
    """Return the text file of an image, with ``labels`` for the last ``images`` in its path."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _read_boxes(file: Path, class_names: Sequence[str]) -> Iterator[BoxAnnotation]:
    from vision_lab.data.formats.box_dataset import BoxAnnotation

    for number, line in enumerate(read_text(file).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            label, values = _parse_label(words[0]), [float(word) for word in words[1:]]
        except (ValueError, OverflowError):
            # The line is not quoted: a link may lead to a file with secrets.
            raise ValueError(f"line {number} does not consist of numbers") from None
        name = class_names[label] if 0 <= label < len(class_names) else f"class {label}"
        if len(values) == 4:
            x, y, width, height = values
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        elif len(values) >= 6 and len(values) % 2 == 0:
            xs, ys = values[::2], values[1::2]
            box = (min(xs), min(ys), max(xs), max(ys))
        else:
            raise ValueError(
                f"line {number} has {len(words)} numbers: expected a class and four numbers, or a "
                "class and a polygon"
            )
        yield BoxAnnotation(box, name)


def _parse_label(word: str) -> int:
    """Parse a label, which some tools write as 3.0.

    Raises:
        ValueError: if it is not an integer.
    """
    number = float(word)
    if number != int(number):
        raise ValueError
    return int(number)
