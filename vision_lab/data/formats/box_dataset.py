"""Detection datasets of any annotation format; invalid boxes are clipped or dropped at setup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_lab.core.errors import AnnotationIssue, DataError

CLIP_TOLERANCE = 1.0
"""Pixels by which a box may extend beyond its image without being reported: rounding, and
coordinates from 1."""

RELATIVE_CLIP_TOLERANCE = 1e-3
"""The same for boxes in fractions of the image."""

RELATIVE_SIZE: tuple[float, float] = (1.0, 1.0)
"""Size of an image whose boxes are in fractions of it."""

MAX_LISTED = 10
"""Maximum number of invalid boxes listed in an error."""

Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2)."""


class BoxAnnotation(NamedTuple):
    """A box in an annotation file.

    Attributes:
        box: (x1, y1, x2, y2).
        name: name of its class.
        crowd: whether it is a region of many objects.
        difficult: whether metrics ignore it.
        area: area of the object in pixels; None for that of its box.
    """

    box: Box
    name: str
    crowd: bool = False
    difficult: bool = False
    area: float | None = None


class ImageAnnotation(NamedTuple):
    """The annotations of an image.

    Attributes:
        path: path of the image.
        boxes: its boxes.
        size: (width, height) in pixels, or ``RELATIVE_SIZE``; None if the file does not give it.
        source: path of the annotation file.
    """

    path: Path
    boxes: Sequence[BoxAnnotation]
    size: tuple[float, float] | None
    source: Path


@dataclass(frozen=True)
class BoxDataset:
    """A map-style dataset of (path, boxes).

    Attributes:
        paths: path of each image.
        starts: (num_images + 1,) index of the first box of each image.
        columns: columns of all boxes: ``boxes`` (n, 4), ``labels``, ``crowd``, ``difficult``,
            ``area`` (NaN for that of the box).
        sizes: (num_images, 2) width and height in the annotation files; 0 if they are unknown.
        relative: whether boxes are in fractions of the image.
        issues: invalid boxes and annotation files.
    """

    paths: Sequence[Path]
    starts: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]]
    sizes: NDArray[np.int64]
    relative: bool = False
    issues: Sequence[AnnotationIssue] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Path, dict[str, Any]]:
        target: dict[str, Any] = self._rows(index)
        width, height = self.sizes[index].tolist()
        target["relative"] = self.relative
        target["size"] = (height, width) if width else None
        return self.paths[index], target

    @property
    def samples(self) -> list[tuple[Path, bytes]]:
        """The path and the boxes, as bytes, of each sample; see ``fingerprint``."""
        samples = []
        for index, path in enumerate(self.paths):
            content = b"".join(rows.tobytes() for rows in self._rows(index).values())
            samples.append((path, content))
        return samples

    def _rows(self, index: int) -> dict[str, NDArray[Any]]:
        rows = slice(self.starts[index], self.starts[index + 1])
        return {name: column[rows] for name, column in self.columns.items()}


def box_dataset(
    annotations: Iterable[ImageAnnotation],
    *,
    class_names: Sequence[str],
    on_error: Literal["raise", "skip"],
    issues: Sequence[AnnotationIssue] = (),
    relative: bool = False,
) -> BoxDataset:
    """Build a dataset from the valid boxes.

    Boxes that extend beyond their image are clipped. Boxes that are empty, inverted, not finite,
    outside their image or of an unknown class are dropped. All of these are listed as issues.

    Args:
        annotations: the annotations of all images.
        class_names: the class names, in the order of the labels.
        on_error: whether to raise an error for any issue instead.
        issues: issues of the annotation files.
        relative: whether boxes are in fractions of the image.

    Raises:
        DataError: if ``on_error`` is "raise" and there are issues, or no box is valid.
    """
    labels = {name: label for label, name in enumerate(class_names)}
    sizes: dict[Path, tuple[float, float]] = {}
    num_boxes, valid, all_issues = 0, [], list(issues)
    counts = [0]
    for image in annotations:
        if image.path in sizes:
            problem = "is listed more than once: only the first entry is used"
            all_issues.append(AnnotationIssue(str(image.path), str(image.source), problem))
            continue
        num_boxes += len(image.boxes)
        valid_boxes, invalid = _validate_boxes(image, labels)
        sizes[image.path] = (0, 0) if relative or image.size is None else image.size
        counts.append(len(valid_boxes))
        valid += valid_boxes
        all_issues += invalid
    has_no_box = num_boxes > 0 and not valid
    if all_issues and (on_error == "raise" or has_no_box):
        raise DataError(_issues_message(all_issues, has_no_box=has_no_box))
    return BoxDataset(
        paths=[*sizes],
        starts=np.cumsum(counts),
        columns=_to_columns(valid, labels),
        sizes=np.array([*sizes.values()], dtype=np.int64).reshape(-1, 2),
        relative=relative,
        issues=all_issues,
    )


def _to_columns(
    annotations: Sequence[BoxAnnotation], labels: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    areas = [np.nan if row.area is None else row.area for row in annotations]
    return {
        "boxes": np.array([row.box for row in annotations], dtype=np.float32).reshape(-1, 4),
        "labels": np.array([labels[row.name] for row in annotations], dtype=np.int64),
        "crowd": np.array([row.crowd for row in annotations], dtype=bool),
        "difficult": np.array([row.difficult for row in annotations], dtype=bool),
        "area": np.array(areas, dtype=np.float32),
    }


def _issues_message(issues: Sequence[AnnotationIssue], *, has_no_box: bool) -> str:
    lines = [f"{len(issues)} annotations are invalid:"]
    for issue in issues[:MAX_LISTED]:
        lines.append(f"  {issue.path}: {issue.problem}")
    if len(issues) > MAX_LISTED:
        lines.append(f"  and {len(issues) - MAX_LISTED} more")
    if has_no_box:
        lines.append("No box is valid.")
    else:
        lines.append("Fix them, or type data.on_error=skip to clip or drop them and list them.")
    return "\n".join(lines)


def _validate_boxes(
    image: ImageAnnotation, labels: Mapping[str, int]
) -> tuple[list[BoxAnnotation], list[AnnotationIssue]]:
    """Return the valid boxes of an image, clipped, and the issues of the others."""
    valid, issues = [], []
    for index, row in enumerate(image.boxes, start=1):
        box, problem = _clip_box(row, image.size, labels)
        if box is not None:
            valid.append(row._replace(box=box))
        if problem:
            values = ", ".join(f"{value:g}" for value in row.box)
            action = "dropped" if box is None else "clipped"
            text = f"box {index} of {row.name!r} [{values}] {problem}: {action}"
            issues.append(AnnotationIssue(str(image.path), str(image.source), text))
    return valid, issues


def _clip_box(
    row: BoxAnnotation, size: tuple[float, float] | None, labels: Mapping[str, int]
) -> tuple[Box | None, str | None]:
    """Return the box clipped to its image, or None if it is invalid; and its problem, or None."""
    x1, y1, x2, y2 = row.box
    if not all(map(isfinite, row.box)):
        return None, "is not finite"
    if row.name not in labels:
        return None, "has a class that is not in data.spec.class_names"
    if x2 < x1 or y2 < y1:
        return None, "is inverted"
    if x2 == x1 or y2 == y1:
        return None, "has no area"
    if size is None:
        return row.box, None
    width, height = size
    clipped = (
        min(max(x1, 0), width),
        min(max(y1, 0), height),
        min(max(x2, 0), width),
        min(max(y2, 0), height),
    )
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        return None, f"is outside the image of {_format_size(size)}"
    overhang = max(abs(new - old) for new, old in zip(clipped, row.box, strict=True))
    tolerance = RELATIVE_CLIP_TOLERANCE if size == RELATIVE_SIZE else CLIP_TOLERANCE
    if overhang > tolerance:
        return clipped, f"extends beyond the image of {_format_size(size)}"
    return clipped, None


def _format_size(size: tuple[float, float]) -> str:
    if size == RELATIVE_SIZE:
        return "1 x 1 (fractions)"
    return f"{size[0]:g} x {size[1]:g} pixels"
