"""Boxes in XML files, one for each image, as in Pascal VOC (Everingham 2010).

Does not import torch, because resolvers read class names with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from xml.etree.ElementTree import Element, ParseError, fromstring

from vision_lab.core.documents import MAX_BYTES
from vision_lab.core.errors import AnnotationIssue, DataError
from vision_lab.core.files import file_exists, read_bytes
from vision_lab.core.text import summarize_names
from vision_lab.data.formats.image_folder import EXTENSIONS
from vision_lab.data.formats.layout import SPLITS, describe_content, find_split, require_root

if TYPE_CHECKING:
    from vision_lab.data.formats.box_dataset import BoxAnnotation, BoxDataset

ANNOTATION_DIRS = ("Annotations", "annotations", "labels", "")
"""Folders of XML files, below the root or the folder of a split; the last one is that itself."""

IMAGE_DIRS = ("JPEGImages", "images", "Images", "")

MAX_LISTED = 6
"""Maximum number of files listed in a message."""

MAX_COORDINATE = 1e7
"""Larger coordinates, in pixels, are invalid."""

PARSE_ERRORS = (ParseError, ValueError, OSError, LookupError)
"""Exceptions of the parser for files that are not XML, or have an unknown encoding."""


def boxes(
    root: str,
    *,
    split: Literal["train", "val", "test"],
    class_names: Sequence[str],
    pixel_offset: Literal[0, 1],
    on_error: Literal["raise", "skip"],
) -> BoxDataset | None:
    """Create the dataset of a split.

    A split is listed in ``ImageSets/Main/<split>.txt`` (train also in ``trainval.txt``), or is the
    folder ``<root>/<split>``. Without either, all annotations are the training split, except those
    listed for other splits.

    Args:
        root: folder with Annotations/ and JPEGImages/ or similar, or with VOCdevkit/VOC2012.
        split: the split.
        class_names: the class names, in the order of the labels.
        pixel_offset: coordinate of the first pixel: 1 in VOC's own files, in which a box includes
            its last pixel; 0 in those of most annotation tools, in which it does not.
        on_error: whether invalid boxes and files raise an error, or are clipped, dropped and
            listed.

    Returns:
        The dataset; None if there is no such split.

    Raises:
        DataError: if there are no annotations, none is valid, or ``on_error`` is "raise".
    """
    from vision_lab.data.formats.box_dataset import ImageAnnotation, box_dataset

    location = _find_split(_find_base(root), split)
    if location is None:
        return None
    folder, files = location
    image_dir = _find_image_dir(folder)
    annotations, issues = [], []
    for file in files:
        try:
            tree = _parse(file)
            rows, size = list(_read_boxes(tree, pixel_offset)), _read_size(tree)
        except PARSE_ERRORS as error:
            problem = f"cannot be read ({error}): its image is skipped"
            issues.append(AnnotationIssue(str(file), str(file), problem))
            continue
        annotations.append(ImageAnnotation(_find_image(tree, file, image_dir), rows, size, file))
    if not annotations:
        problems = [f"{issue.path} {issue.problem}" for issue in issues]
        listing = summarize_names(problems, MAX_LISTED)
        raise DataError(f"none of {len(files)} annotations can be read: {listing}")
    _check_images_exist([image.path for image in annotations], on_error)
    return box_dataset(
        annotations,
        class_names=class_names,
        on_error=on_error,
        issues=issues,
    )


def _check_images_exist(paths: Sequence[Path], on_error: Literal["raise", "skip"]) -> None:
    missing = []
    for path in paths:
        if not file_exists(path):
            missing.append(str(path))
    if missing and (on_error == "raise" or len(missing) == len(paths)):
        listing = summarize_names(missing, MAX_LISTED)
        raise DataError(f"{len(missing)} of {len(paths)} images are missing: {listing}")


def class_names(root: str) -> list[str]:
    """Return the names of all classes in the annotations, sorted.

    Args:
        root: folder of the dataset.

    Raises:
        DataError: if there are none.
    """
    base = _find_base(root)
    names: set[str] = set()
    for split in SPLITS:
        _, files = _find_split(base, split) or (base, [])
        for file in files:
            try:
                tree = _parse(file)
            except PARSE_ERRORS:
                continue  # reported at setup
            names.update((entry.findtext("name") or "").strip() for entry in tree.iter("object"))
    if not names:
        raise DataError(f"the annotations in {base} contain no objects")
    return sorted(names)


def _parse(file: Path) -> Element:
    return fromstring(read_bytes(file, max_bytes=MAX_BYTES))


def _find_base(root: str) -> Path:
    """Return the folder with the annotations: the root, or the latest year of a VOCdevkit in it."""
    base = require_root(root, content="Annotations/ and JPEGImages/")
    years = sorted([*base.glob("VOCdevkit/VOC*/Annotations"), *base.glob("VOC*/Annotations")])
    if years:
        return years[-1].parent
    return base


def _find_split(base: Path, split: str) -> tuple[Path, list[Path]] | None:
    """Return the folder of a split and its annotation files; None if there is no such split."""
    lists = {name: _find_list(base, name) for name in (*SPLITS, "trainval")}
    file = lists[split] or (lists["trainval"] if split == "train" else None)
    if file:
        return base, _read_list(base, file)
    if lists["train"] or lists["trainval"]:
        return None
    folder = find_split(base, split, whole=None)
    if folder:
        return folder, sorted(_find_annotation_dir(folder).glob("*.xml"))
    if split != "train":
        return None
    elsewhere: set[Path] = set()
    for other in lists.values():
        elsewhere.update(_read_list(base, other) if other else ())
    return base, sorted(set(_find_annotation_dir(base).glob("*.xml")) - elsewhere)


def _find_list(base: Path, split: str) -> Path | None:
    """Return the file that lists the images of a split, if there is one."""
    for name in SPLITS.get(split, (split,)):
        file = base / "ImageSets" / "Main" / f"{name}.txt"
        if file.is_file():
            return file
    return None


def _read_list(base: Path, file: Path) -> list[Path]:
    """Return the annotation files in a list: one name a line, possibly followed by other words."""
    folder = _find_annotation_dir(base)
    content = read_bytes(file).decode("utf-8", errors="replace")
    paths = []
    for line in map(str.strip, content.splitlines()):
        if line:
            whole_line = folder / f"{line}.xml"
            first_word = folder / f"{line.split()[0]}.xml"
            paths.append(whole_line if whole_line.is_file() else first_word)
    return paths


def _find_annotation_dir(base: Path) -> Path:
    for name in ANNOTATION_DIRS:
        if any((base / name).glob("*.xml")):
            return base / name
    raise DataError(
        f"{base} has no XML files in Annotations/, annotations/ or labels/: it contains "
        f"{describe_content(base)}"
    )


def _find_image_dir(base: Path) -> Path:
    return next(base / name for name in IMAGE_DIRS if (base / name).is_dir())


def _find_image(
    tree: Element,
    file: Path,
    image_dir: Path,
) -> Path:
    """Return the image of an annotation: that of the same name, or the one named in the file."""
    filename = (tree.findtext("filename") or "").strip()
    candidates = []
    for folder in (image_dir, file.parent):
        for suffix in sorted(EXTENSIONS):
            candidates.append(folder / f"{file.stem}{suffix}")
    if filename:
        candidates += [image_dir / filename, file.parent / filename]
    for path in candidates:
        if file_exists(path):
            return path
    return image_dir / (filename or f"{file.stem}.jpg")


def _read_boxes(tree: Element, pixel_offset: int) -> Iterator[BoxAnnotation]:
    from vision_lab.data.formats.box_dataset import BoxAnnotation

    for entry in tree.findall("object"):
        x1 = _read_number(entry, "bndbox/xmin") - pixel_offset
        y1 = _read_number(entry, "bndbox/ymin") - pixel_offset
        x2, y2 = _read_number(entry, "bndbox/xmax"), _read_number(entry, "bndbox/ymax")
        name = (entry.findtext("name") or "").strip()
        difficult = (entry.findtext("difficult") or "0").strip() == "1"
        yield BoxAnnotation((x1, y1, x2, y2), name, difficult=difficult)


def _read_size(tree: Element) -> tuple[float, float] | None:
    if tree.find("size") is None:
        return None
    width, height = _read_number(tree, "size/width"), _read_number(tree, "size/height")
    return (width, height) if width > 0 and height > 0 else None  # some tools write 0


def _read_number(element: Element, tag: str) -> float:
    """Return the number in a nested element; NaN if it is out of range, which drops the box."""
    text = element.findtext(tag)
    if text is None:
        raise ValueError(f"it has no {tag}")
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"its {tag} is {text.strip()!r}, not a number") from None
    if abs(number) <= MAX_COORDINATE:
        return number
    return nan
