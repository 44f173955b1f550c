"""COCO's annotation files (Lin 2014: https://arxiv.org/abs/1405.0312). No torch here: app reads class names too."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from faster_coco_eval.core import mask as rle
from numpy.typing import NDArray

from vision_lab.core.arguments import Count
from vision_lab.core.errors import DataError, UnreadableFileError
from vision_lab.core.files import file_exists, read_bytes
from vision_lab.core.machine import memory_bytes
from vision_lab.core.spec import IGNORE_INDEX
from vision_lab.core.text import summarize_names
from vision_lab.data.formats.box_dataset import (
    BoxAnnotation,
    BoxDataset,
    ImageAnnotation,
    build_box_dataset,
)
from vision_lab.data.formats.image_folder import SPLITS

LAYOUTS = (
    ("annotations/instances_{split}2017.json", "{split}2017"),  # as COCO itself lays it out
    ("annotations/instances_{split}.json", "{split}"),
    ("annotations/{split}.json", "{split}"),
    ("{split}/_annotations.coco.json", "{split}"),  # as Roboflow exports it
)
"""Where a split's annotations and pictures are looked for below the root."""

REQUIRED_KEYS: dict[str, dict[str, type]] = {
    "images": {"id": int, "file_name": str, "height": int, "width": int},
    "annotations": {"image_id": int, "category_id": int},
    "categories": {"id": int, "name": str},
}
"""list: keys of each of its entries that are read."""

MAX_SIDE = 1_000_000
"""Pixels of a picture's side."""

MAX_NUMBER = 1e12
"""Of a box or an area: what is more is no number of pixels."""

BYTES_A_BYTE = 8
"""Of memory that a byte of JSON takes once it is read, or more."""

LISTED = 5
"""Pictures that an error names."""


CategoryNames = dict[int, str]
"""The names of the categories by their numbers."""

AnnotatedImages = list[tuple[Path, dict[str, Any], list[dict[str, Any]]]]
"""Each picture's path, what is said of it, and its annotations."""


@dataclass(frozen=True)
class CocoMaskDataset:
    """A map-style data set of (path, mask), masks drawn from outlines and run lengths.

    Attributes:
        samples: (path, the picture's size and annotations as JSON) of each.
        classes: COCO's number of a category: class, from 1.
        file: where the annotations come from.
        max_pixels: a picture of more is not drawn.
    """

    samples: Sequence[tuple[Path, bytes]]
    classes: Mapping[int, int]
    file: Path
    max_pixels: int

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Path, NDArray[np.uint8]]:
        path, told = self.samples[index]
        image = json.loads(told)
        try:
            return path, self._mask(**image)
        # What a broken outline makes the C++ code raise is one of the last two.
        except (
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            RuntimeError,
            MemoryError,
            OverflowError,
        ) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UnreadableFileError(
                str(path), f"its annotations in {self.file} cannot be drawn: {reason}"
            ) from error

    def _mask(
        self, height: int, width: int, objects: Sequence[Mapping[str, Any]]
    ) -> NDArray[np.uint8]:
        """(H, W): 0 for the background; of objects that overlap the smaller is seen.

        What a crowd's outline holds beside single objects does not count: which pixels are of it nobody has said.
        """
        if height * width > self.max_pixels:
            raise ValueError(
                f"the picture is said to have {width} x {height} pixels, more than data.max_pixels"
            )
        drawn = [(each, _rasterize(each["segmentation"], height, width)) for each in objects]
        drawn.sort(key=lambda pair: (not pair[0].get("iscrowd", 0), -int(pair[1].sum())))
        mask = np.zeros((height, width), dtype=np.uint8)
        for each, where in drawn:
            mask[where] = (
                IGNORE_INDEX if each.get("iscrowd", 0) else self.classes[each["category_id"]]
            )
        return mask


def coco_masks(
    root: str,
    *,
    split: Literal["train", "val", "test"],
    class_names: Sequence[str],
    max_pixels: Count,
    on_error: Literal["raise", "skip"],
) -> CocoMaskDataset | None:
    """The pictures of a split, those without objects too.

    Args:
        root: the folder; ``PLACES`` lists how it may be laid out.
        split: which pictures.
        class_names: what the classes are called, background first.
        max_pixels: a picture of more is not drawn.
        on_bad: stop where a picture is not there; or let it be left out, counted and listed, as a file that is bad.

    Returns:
        None where the folder has no such split.

    Raises:
        DataError: where the annotations or a picture are missing, or hold a category that ``class_names`` has not.
    """
    found = _split(root, split, class_names, on_bad=on_error)
    if found is None:
        return None
    file, names, listed = found
    samples = []
    for path, image, objects in listed:
        drawn = [
            {key: each.get(key, 0) for key in ("category_id", "segmentation", "iscrowd")}
            for each in objects
        ]
        told = {"height": image["height"], "width": image["width"], "objects": drawn}
        samples.append((path, json.dumps(told).encode()))
    numbers = {number: list(class_names).index(name) for number, name in names.items()}
    return CocoMaskDataset(samples, numbers, file, max_pixels)


def boxes(
    root: str,
    *,
    split: Literal["train", "val", "test"],
    class_names: Sequence[str],
    on_error: Literal["raise", "skip"],
) -> BoxDataset | None:
    """The pictures of a split and their boxes; those without objects too. Outlines and run lengths are not looked at.

    Args:
        root: the folder; ``PLACES`` lists how it may be laid out.
        split: which pictures.
        class_names: what the classes are called; categories' numbers may have gaps.
        on_bad: broken boxes and missing pictures stop the run; or are clipped, dropped or left out, and listed.

    Returns:
        None where the folder has no such split.

    Raises:
        DataError: where the annotations are missing, none of the pictures is there or not one box can be used, or there
            are categories that ``class_names`` has not; or where ``on_bad`` says so.
    """
    found = _split(root, split, class_names, on_bad=on_error)
    if found is None:
        return None
    file, names, listed = found
    told = []
    for path, image, objects in listed:
        size = (
            (image["width"], image["height"])
            if image["width"] > 0 and image["height"] > 0
            else None
        )
        told.append(ImageAnnotation(path, [_row(each, names) for each in objects], size, file))
    return build_box_dataset(told, class_names=class_names, on_bad=on_error)


def _split(
    root: str, split: str, class_names: Sequence[str], *, on_bad: str
) -> tuple[Path, CategoryNames, AnnotatedImages] | None:
    """The annotation file of a split and what it says; None where there is no such split."""
    found = _find_split(root, split)
    if found is None and split == "train":
        raise DataError(_missing(root))
    if found is None:
        return None
    file, folder = found
    names, listed = _pictures(file, folder, on_bad=on_bad)
    unknown = sorted(set(names.values()) - set(class_names))
    if unknown:
        raise DataError(
            f"{file} has categories that data.spec.class_names has not: {', '.join(unknown)}"
        )
    return file, names, listed


def _row(annotation: Mapping[str, Any], names: Mapping[int, str]) -> BoxAnnotation:
    box = annotation.get("bbox")
    left, top, width, height = (
        map(_number, box) if isinstance(box, list) and len(box) == 4 else (math.nan,) * 4
    )
    area = _number(annotation.get("area"))
    return BoxAnnotation(
        (left, top, left + width, top + height),
        names.get(annotation["category_id"], f"category {annotation['category_id']}"),
        crowd=bool(annotation.get("iscrowd", 0)),
        area=None if math.isnan(area) else area,
    )


def _pictures(file: Path, folder: Path, *, on_bad: str) -> tuple[CategoryNames, AnnotatedImages]:
    content = _read(file)
    objects: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for each in content["annotations"]:
        if each["image_id"] not in objects:
            raise DataError(
                f"{file}: annotation {each.get('id')} is of picture {each['image_id']}, which is not listed"
            )
        objects[each["image_id"]].append(each)
    images = sorted(content["images"], key=lambda image: image["id"])
    listed = [(folder / image["file_name"], image, objects[image["id"]]) for image in images]
    twice = [str(path) for path, count in Counter(path for path, *_ in listed).items() if count > 1]
    if twice or len(objects) < len(listed):
        raise DataError(
            f"{file} lists more than once: {summarize_names(twice, LISTED) or 'pictures of one id'}"
        )
    absent = [str(path) for path, *_ in listed if not file_exists(path)]
    if absent and (on_bad == "raise" or len(absent) == len(listed)):
        raise DataError(
            f"{file} lists {len(absent)} of {len(listed)} pictures that are not there: {summarize_names(absent, LISTED)}"
        )
    return {category["id"]: category["name"] for category in content["categories"]}, listed


def category_names(root: str) -> list[str]:
    """The names of the categories in the order of their numbers, from val's file, which is smaller, or else train's.

    Raises:
        DataError: where there is none.
    """
    found = [place for place in (_find_split(root, split) for split in ("val", "train")) if place]
    if not found:
        raise DataError(_missing(root))
    listed = _read(found[0][0])["categories"]
    return [
        str(category["name"]) for category in sorted(listed, key=lambda category: category["id"])
    ]


def _find_split(root: str, split: str) -> tuple[Path, Path] | None:
    """The annotations and the folder of pictures of a split."""
    base = Path(root).expanduser()
    for name in SPLITS[split]:
        for file, folder in LAYOUTS:
            if (base / file.format(split=name)).is_file():
                return base / file.format(split=name), base / folder.format(split=name)
    return None


def _missing(root: str) -> str:
    listed = ", ".join(file.format(split="train") for file, _ in LAYOUTS)
    return f"{Path(root).expanduser()} has no annotations of COCO's kind (looked for {listed}): type data.root=..."


def _read(file: Path) -> dict[str, Any]:
    try:
        _check_size(file)
        content = json.loads(read_bytes(file))
    except RecursionError:
        raise DataError(f"{file} is no JSON of COCO's: it is nested without end") from None
    except ValueError as error:
        raise DataError(f"{file} is no JSON: {error}") from error
    for kind, keys in REQUIRED_KEYS.items():
        entries = content.get(kind) if isinstance(content, dict) else None
        if not isinstance(entries, list) or (kind != "annotations" and not entries):
            raise DataError(f"{file} is not of COCO's kind: it has no list of {kind}")
        for place, entry in enumerate(entries):
            values = entry if isinstance(entry, dict) else {}
            wrong = [key for key, wanted in keys.items() if type(values.get(key)) is not wanted]
            if wrong:
                typed = " and ".join(f"a {key} of type {keys[key].__name__}" for key in wrong)
                raise DataError(
                    f"{file} is not of COCO's kind: number {place} of its {kind} needs {typed}"
                )
    for place, image in enumerate(content["images"]):
        if not 0 <= image["width"] <= MAX_SIDE or not 0 <= image["height"] <= MAX_SIDE:
            size = f"{_shown(image['width'])} x {_shown(image['height'])}"
            raise DataError(f"{file}: number {place} of its images is said to have {size} pixels")
    return dict(content)


def _check_size(file: Path) -> None:
    """Refuse a file that would fill the memory.

    Raises:
        ValueError: where it is too large for this machine.
    """
    memory = memory_bytes()
    if memory and file.stat().st_size * BYTES_A_BYTE > memory:
        raise ValueError(
            f"it has {file.stat().st_size / 1e9:.1f} GB, too much for the memory of this machine"
        )


def _shown(value: int) -> str:
    return str(value) if abs(value) < 10**12 else "10^12 or more"


def _number(value: Any) -> float:
    """A finite number of an annotation; NaN for anything else."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not abs(value) <= MAX_NUMBER
    ):
        return math.nan
    return float(value)


def _rasterize(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """(H, W), where an object is: of polygons, or of run lengths, as numbers or as text.

    Raises:
        ValueError: where they cannot be of a picture of that size.
    """
    if isinstance(segmentation, list):
        if not segmentation or any(len(line) < 6 or len(line) % 2 for line in segmentation):
            raise ValueError("an outline needs three points or more, x and y of each")
        largest = 2 * max(height, width)
        if not all(-largest < value < 2 * largest for line in segmentation for value in line):
            raise ValueError("an outline lies far outside of the picture")
        return rle.decode(rle.merge(rle.frPyObjects(segmentation, height, width))).astype(bool)
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(
            f"run lengths of {segmentation['size']}, the picture has {[height, width]}"
        )
    if isinstance(segmentation["counts"], list):
        if sum(segmentation["counts"]) != height * width:
            raise ValueError(
                f"run lengths of {sum(segmentation['counts'])} pixels in all, not {height * width}"
            )
        segmentation = rle.frPyObjects(segmentation, height, width)
    return rle.decode(segmentation).astype(bool)
