"""COCO's annotation files (Lin 2014: https://arxiv.org/abs/1405.0312).

Does not import torch, because resolvers read class names with it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from faster_coco_eval.core import mask as rle
from numpy.typing import NDArray

from vision_lab.core.arguments import Count
from vision_lab.core.errors import DataError, UnreadableFileError
from vision_lab.core.files import expand_home, file_exists, read_bytes
from vision_lab.core.machine import memory_bytes
from vision_lab.core.spec import IGNORE_INDEX
from vision_lab.core.text import first_line, summarize_names
from vision_lab.data.formats.box_dataset import (
    BoxAnnotation,
    BoxDataset,
    ImageAnnotation,
    box_dataset,
)
from vision_lab.data.formats.layout import expand_split

LAYOUTS = (
    ("annotations/instances_{split}2017.json", "{split}2017"),  # COCO itself
    ("annotations/instances_{split}.json", "{split}"),
    ("annotations/{split}.json", "{split}"),
    ("{split}/_annotations.coco.json", "{split}"),  # Roboflow
)
"""Annotation file and image folder of a split, relative to the root."""

REQUIRED_KEYS: dict[str, dict[str, type]] = {
    "images": {
        "id": int,
        "file_name": str,
        "height": int,
        "width": int,
    },
    "annotations": {"image_id": int, "category_id": int},
    "categories": {"id": int, "name": str},
}
"""Required keys of the entries of each list, and their types."""

MAX_SIDE = 1_000_000
"""Maximum side of an image in pixels."""

MAX_NUMBER = 1e12
"""Larger coordinates and areas, in pixels, are invalid."""

MEMORY_PER_BYTE = 8
"""Lower bound of the memory that parsed JSON takes, per byte of the file."""

MAX_LISTED = 5
"""Maximum number of images listed in a message."""

RASTERIZE_ERRORS = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    RuntimeError,
    MemoryError,
    OverflowError,
)
"""Exceptions for invalid polygons; the last two are raised by C++ code."""


class AnnotatedImage(NamedTuple):
    """An image in an annotation file.

    Attributes:
        path: path of the image.
        entry: its entry in the list of images.
        annotations: its annotations.
    """

    path: Path
    entry: Mapping[str, Any]
    annotations: Sequence[Mapping[str, Any]]


class AnnotationFile(NamedTuple):
    """The content of an annotation file.

    Attributes:
        path: path of the file.
        categories: category names by ID, which may have gaps.
        images: the images, sorted by ID.
    """

    path: Path
    categories: Mapping[int, str]
    images: Sequence[AnnotatedImage]


@dataclass(frozen=True)
class CocoMaskDataset:
    """A map-style dataset of (path, mask), with masks rasterized from polygons and RLE.

    Attributes:
        samples: path of each image, and its size and annotations as JSON.
        labels: label of each category ID, from 1.
        file: path of the annotation file.
        max_pixels: maximum number of pixels of a mask.
    """

    samples: Sequence[tuple[Path, bytes]]
    labels: Mapping[int, int]
    file: Path
    max_pixels: int

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Path, NDArray[np.uint8]]:
        path, content = self.samples[index]
        try:
            return path, self._make_mask(**json.loads(content))
        except RASTERIZE_ERRORS as error:
            reason = f"its annotations in {self.file} cannot be rasterized: {first_line(error)}"
            raise UnreadableFileError(str(path), reason) from error

    def _make_mask(
        self, height: int, width: int, objects: Sequence[Mapping[str, Any]]
    ) -> NDArray[np.uint8]:
        """Rasterize the objects of an image to labels (H, W), with 0 for the background.

        Of overlapping objects the smaller one is visible. Pixels of a crowd outside single objects
        are ignored, because which of them belong to objects is unknown.
        """
        if height * width > self.max_pixels:
            raise ValueError(
                f"the image has {width} x {height} pixels according to the file, more than "
                "data.max_pixels"
            )
        regions = [(entry, _rasterize(entry["segmentation"], height, width)) for entry in objects]
        regions.sort(key=lambda pair: (not pair[0].get("iscrowd", 0), -int(pair[1].sum())))
        mask = np.zeros((height, width), dtype=np.uint8)
        for entry, region in regions:
            is_crowd = entry.get("iscrowd", 0)
            mask[region] = IGNORE_INDEX if is_crowd else self.labels[entry["category_id"]]
        return mask


def coco_masks(
    root: str,
    *,
    split: Literal["train", "val", "test"],
    class_names: Sequence[str],
    max_pixels: Count,
    on_error: Literal["raise", "skip"],
) -> CocoMaskDataset | None:
    """Create the segmentation dataset of a split, including images without objects.

    Args:
        root: folder of the dataset, in one of ``LAYOUTS``.
        split: the split.
        class_names: the class names, background first.
        max_pixels: maximum number of pixels of a mask.
        on_error: whether missing images raise an error, or are skipped and listed.

    Returns:
        The dataset; None if there is no such split.

    Raises:
        DataError: if the annotations are missing or invalid, or contain unknown categories.
    """
    content = _read_split(root, split, class_names, on_error=on_error)
    if content is None:
        return None
    samples = []
    for image in content.images:
        objects = []
        for entry in image.annotations:
            keys = ("category_id", "segmentation", "iscrowd")
            objects.append({key: entry.get(key, 0) for key in keys})
        size = {key: image.entry[key] for key in ("height", "width")}
        samples.append((image.path, json.dumps({**size, "objects": objects}).encode()))
    names = list(class_names)
    labels = {id_: names.index(name) for id_, name in content.categories.items()}
    return CocoMaskDataset(samples, labels, content.path, max_pixels)


def boxes(
    root: str,
    *,
    split: Literal["train", "val", "test"],
    class_names: Sequence[str],
    on_error: Literal["raise", "skip"],
) -> BoxDataset | None:
    """Create the detection dataset of a split, including images without objects.

    Args:
        root: folder of the dataset, in one of ``LAYOUTS``.
        split: the split.
        class_names: the class names, in the order of the labels.
        on_error: whether invalid boxes and missing images raise an error, or are clipped, dropped
            and listed.

    Returns:
        The dataset; None if there is no such split.

    Raises:
        DataError: if the annotations are missing or invalid, contain unknown categories or no valid
            box, or ``on_error`` is "raise".
    """
    content = _read_split(root, split, class_names, on_error=on_error)
    if content is None:
        return None
    annotations = []
    for image in content.images:
        width, height = image.entry["width"], image.entry["height"]
        size = (width, height) if width > 0 and height > 0 else None
        rows = [_to_box(entry, content.categories) for entry in image.annotations]
        annotations.append(ImageAnnotation(image.path, rows, size, content.path))
    return box_dataset(annotations, class_names=class_names, on_error=on_error)


def category_names(root: str) -> list[str]:
    """Return the category names, in the order of their IDs.

    They are read from the validation file, which is smaller, or else from the training file.

    Args:
        root: folder of the dataset.

    Raises:
        DataError: if there is no annotation file.
    """
    location = _find_split(root, "val") or _find_split(root, "train")
    if location is None:
        raise DataError(_missing_message(root))
    categories = _read_json(location[0])["categories"]
    return [str(entry["name"]) for entry in sorted(categories, key=lambda entry: entry["id"])]


def mask_class_names(root: str) -> list[str]:
    """Return the classes of masks: the background, then the categories.

    Args:
        root: folder of the dataset.

    Raises:
        DataError: if there are no annotation files.
    """
    return ["background", *category_names(root)]


def _read_split(
    root: str, split: str, class_names: Sequence[str], *, on_error: str
) -> AnnotationFile | None:
    """Read the annotation file of a split; None if there is no such split."""
    location = _find_split(root, split)
    if location is None:
        if split == "train":
            raise DataError(_missing_message(root))
        return None
    content = _read_annotations(*location, on_error=on_error)
    unknown = sorted(set(content.categories.values()) - set(class_names))
    if unknown:
        raise DataError(
            f"{content.path} has categories that are not in data.spec.class_names: "
            f"{', '.join(unknown)}"
        )
    return content


def _find_split(root: str, split: str) -> tuple[Path, Path] | None:
    """Return the annotation file and the image folder of a split."""
    base = expand_home(root)
    for path, name in expand_split(split, [file for file, _ in LAYOUTS]):
        if (base / path).is_file():
            folders = {file.format(split=name): folder for file, folder in LAYOUTS}
            return base / path, base / folders[path].format(split=name)
    return None


def _missing_message(root: str) -> str:
    files = ", ".join(file.format(split="train") for file, _ in LAYOUTS)
    return f"{expand_home(root)} has no COCO annotations (searched {files}): type data.root=..."


def _read_annotations(
    file: Path,
    folder: Path,
    *,
    on_error: str,
) -> AnnotationFile:
    content = _read_json(file)
    annotations: dict[int, list[dict[str, Any]]] = {}
    for entry in content["images"]:
        annotations[entry["id"]] = []
    for entry in content["annotations"]:
        if entry["image_id"] not in annotations:
            raise DataError(
                f"{file}: annotation {entry.get('id')} belongs to image {entry['image_id']}, which "
                "is not listed"
            )
        annotations[entry["image_id"]].append(entry)
    images = []
    for entry in sorted(content["images"], key=lambda entry: entry["id"]):
        path = folder / entry["file_name"]
        images.append(AnnotatedImage(path, entry, annotations[entry["id"]]))
    counts = Counter(image.path for image in images)
    repeated = []
    for path, count in counts.items():
        if count > 1:
            repeated.append(str(path))
    if repeated or len(annotations) < len(images):
        names = summarize_names(repeated, MAX_LISTED) or "images with the same ID"
        raise DataError(f"{file} lists more than once: {names}")
    missing = []
    for image in images:
        if not file_exists(image.path):
            missing.append(str(image.path))
    if missing and (on_error == "raise" or len(missing) == len(images)):
        raise DataError(
            f"{file} lists {len(missing)} of {len(images)} images that do not exist: "
            f"{summarize_names(missing, MAX_LISTED)}"
        )
    categories = {entry["id"]: entry["name"] for entry in content["categories"]}
    return AnnotationFile(file, categories, images)


def _read_json(file: Path) -> dict[str, Any]:
    """Read and validate an annotation file."""
    try:
        _check_file_size(file)
        content = json.loads(read_bytes(file))
    except RecursionError:
        raise DataError(f"{file} is not a COCO file: it is nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}") from error
    for name in REQUIRED_KEYS:
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or (name != "annotations" and not entries):
            raise DataError(f"{file} is not a COCO file: it has no list of {name}")
        for problem in _find_entry_errors(name, entries):
            raise DataError(f"{file} is not a COCO file: {problem}")
    for index, entry in enumerate(content["images"]):
        width, height = entry["width"], entry["height"]
        if not 0 <= width <= MAX_SIDE or not 0 <= height <= MAX_SIDE:
            size = f"{_format_int(width)} x {_format_int(height)}"
            raise DataError(f"{file}: entry {index} of images has {size} pixels")
    return dict(content)


def _find_entry_errors(name: str, entries: Sequence[Any]) -> Iterator[str]:
    types = REQUIRED_KEYS[name]
    for index, entry in enumerate(entries):
        values = entry if isinstance(entry, dict) else {}
        invalid = []
        for key, type_ in types.items():
            if type(values.get(key)) is not type_:
                invalid.append(key)
        if invalid:
            required = " and ".join(f"a key {key} of type {types[key].__name__}" for key in invalid)
            yield f"entry {index} of {name} requires {required}"


def _check_file_size(file: Path) -> None:
    """Reject a file that would exhaust the memory.

    Raises:
        ValueError: if it is too large for this machine.
    """
    memory, size = memory_bytes(), file.stat().st_size
    if memory and size * MEMORY_PER_BYTE > memory:
        raise ValueError(f"it has {size / 1e9:.1f} GB, too much for the memory of this machine")


def _format_int(value: int) -> str:
    if abs(value) < 10**12:
        return str(value)
    return "10^12 or more"


def _to_box(annotation: Mapping[str, Any], categories: Mapping[int, str]) -> BoxAnnotation:
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        box = [math.nan] * 4
    x, y, width, height = map(_to_number, box)
    area = _to_number(annotation.get("area"))
    category = annotation["category_id"]
    return BoxAnnotation(
        (x, y, x + width, y + height),
        categories.get(category, f"category {category}"),
        crowd=bool(annotation.get("iscrowd", 0)),
        area=None if math.isnan(area) else area,
    )


def _to_number(value: Any) -> float:
    """Return a number of an annotation; NaN if it is not a number, or too large."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and abs(value) <= MAX_NUMBER:
        return float(value)
    return math.nan


def _rasterize(
    segmentation: Any,
    height: int,
    width: int,
) -> NDArray[np.bool_]:
    """Rasterize polygons or RLE, compressed or not, to (H, W).

    Raises:
        ValueError: if they do not fit the size of the image.
    """
    if isinstance(segmentation, list):
        _check_polygons(segmentation, height, width)
        return rle.decode(rle.merge(rle.frPyObjects(segmentation, height, width))).astype(bool)
    size, counts = segmentation["size"], segmentation["counts"]
    if list(size) != [height, width]:
        raise ValueError(f"the RLE has size {size}, the image {[height, width]}")
    if isinstance(counts, list):
        if sum(counts) != height * width:
            raise ValueError(f"the RLE has {sum(counts)} pixels, not {height * width}")
        segmentation = rle.frPyObjects(segmentation, height, width)
    return rle.decode(segmentation).astype(bool)


def _check_polygons(
    polygons: Sequence[Sequence[float]],
    height: int,
    width: int,
) -> None:
    if not polygons or any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
        raise ValueError("a polygon requires x and y of three or more points")
    limit = 2 * max(height, width)  # far outside, the rasterization takes very long
    for polygon in polygons:
        if not all(-limit < value < 2 * limit for value in polygon):
            raise ValueError("a polygon is far outside the image")
