"""Pictures with boxes, whatever format says them, looked over at set-up: what is broken is mended or dropped."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_lab.core.errors import AnnotationIssue, DataError

CLIP_TOLERANCE = 1.0
"""Pixels by which a box may reach beyond its picture without a word: rounding, and counting from 1."""

MAX_LISTED = 10
"""Broken boxes that an error names."""

log = logging.getLogger(__name__)


class BoxAnnotation(NamedTuple):
    """A box as a file says it.

    Attributes:
        box: left, top, right and bottom.
        name: of its class.
        crowd: whether it is a region of many.
        difficult: whether measures leave it out.
        area: of the object, in pixels; None: of its box.
    """

    box: tuple[float, float, float, float]
    name: str
    crowd: bool = False
    difficult: bool = False
    area: float | None = None


class ImageAnnotation(NamedTuple):
    """What a file says of one picture.

    Attributes:
        path: of the picture.
        rows: its boxes.
        size: (width, height) in pixels, or (1, 1) for boxes in parts of the picture; None where it is not said.
        source: the file that says it.
    """

    path: Path
    rows: Sequence[BoxAnnotation]
    size: tuple[float, float] | None
    source: Path


@dataclass(frozen=True)
class BoxDataset:
    """A map-style data set of (path, boxes).

    Attributes:
        paths: of the pictures.
        starts: (pictures + 1,) where the boxes of each begin among those of all.
        columns: of all boxes together: ``boxes`` (n, 4), ``labels``, ``crowd``, ``difficult``, ``area`` (NaN: that of
            the box).
        sizes: (pictures, 2) width and height as the files say them; 0 where they do not.
        relative: whether boxes are in parts of the picture.
        faults: the boxes that were broken.
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
        rows = slice(self.starts[index], self.starts[index + 1])
        found = {name: column[rows] for name, column in self.columns.items()}
        width, height = self.sizes[index].tolist()
        return self.paths[index], {
            **found,
            "relative": self.relative,
            "size": (height, width) if width else None,
        }

    @property
    def samples(self) -> list[tuple[Path, bytes]]:
        """(path, what is said of it)."""
        told = []
        for index, path in enumerate(self.paths):
            rows = slice(self.starts[index], self.starts[index + 1])
            told.append(
                (path, b"".join(column[rows].tobytes() for column in self.columns.values()))
            )
        return told


def build_box_dataset(
    told: Iterable[ImageAnnotation],
    *,
    class_names: Sequence[str],
    on_bad: Literal["raise", "skip"],
    broken: Sequence[AnnotationIssue] = (),
    relative: bool = False,
) -> BoxDataset:
    """The pictures with the boxes that can be learnt from.

    A box that reaches beyond its picture is clipped; one that is empty, reversed, no number, outside of its picture or
    of a class that is not known is dropped. All such are listed as faults.

    Args:
        told: what the files say.
        class_names: in the order of the labels.
        on_bad: stop at anything broken instead.
        broken: what was wrong with the files themselves.
        relative: boxes are in parts of the picture.

    Raises:
        DataError: where ``on_bad`` says so, or not one box can be used, naming the files.
    """
    numbers = {name: label for label, name in enumerate(class_names)}
    paths: dict[Path, tuple[float, float]] = {}  # a set that keeps its order
    counts, kept, faults = [0], [], list(broken)
    rows = 0
    for each in told:
        if each.path in paths:
            faults.append(
                AnnotationIssue(
                    str(each.path),
                    str(each.source),
                    "is listed more than once: the later is left out",
                )
            )
            continue
        rows += len(each.rows)
        good, bad = _valid_boxes(each, numbers)
        paths[each.path] = (0, 0) if relative or each.size is None else each.size
        counts.append(len(good))
        kept += good
        faults += bad
    if faults and (on_bad == "raise" or (rows and not kept)):
        listed = [f"{fault.path}: {fault.problem}" for fault in faults]
        more = [f"and {len(listed) - MAX_LISTED} more"] if len(listed) > MAX_LISTED else []
        mend = "Mend them, or type data.on_error=skip to have them clipped or dropped, counted and listed."
        last = mend if kept or not rows else "Not one box can be used."
        raise DataError(
            "\n  ".join([f"{len(faults)} annotations are broken:", *listed[:MAX_LISTED], *more])
            + f"\n{last}"
        )
    columns: dict[str, NDArray[Any]] = {
        "boxes": np.array([row.box for row in kept], dtype=np.float32).reshape(-1, 4),
        "labels": np.array([numbers[row.name] for row in kept], dtype=np.int64),
        "crowd": np.array([row.crowd for row in kept], dtype=bool),
        "difficult": np.array([row.difficult for row in kept], dtype=bool),
        "area": np.array(
            [np.nan if row.area is None else row.area for row in kept], dtype=np.float32
        ),
    }
    sizes = np.array([*paths.values()], dtype=np.int64).reshape(-1, 2)
    return BoxDataset([*paths], np.cumsum(counts), columns, sizes, relative, faults)


def _valid_boxes(
    told: ImageAnnotation, numbers: Mapping[str, int]
) -> tuple[list[BoxAnnotation], list[AnnotationIssue]]:
    """A picture's boxes that can be used, and what is wrong with others."""
    good, faults = [], []
    for place, row in enumerate(told.rows):
        box, reason = _clip_box(row, told.size, numbers)
        if box is not None:
            good.append(row._replace(box=box))
        if reason:
            shown = ", ".join(f"{value:g}" for value in row.box)
            what = f"box {place + 1} of {row.name!r} [{shown}] {reason}: {'dropped' if box is None else 'clipped'}"
            faults.append(AnnotationIssue(str(told.path), str(told.source), what))
    return good, faults


def _clip_box(
    row: BoxAnnotation, size: tuple[float, float] | None, numbers: Mapping[str, int]
) -> tuple[tuple[float, float, float, float] | None, str | None]:
    """A box as it can be used, or None; and what is wrong with it, or None."""
    left, top, right, bottom = row.box
    if not all(map(isfinite, row.box)):
        return None, "is no number"
    if row.name not in numbers:
        return None, "is of no class of data.spec.class_names"
    if right < left or bottom < top:
        return None, "has its corners reversed"
    if right == left or bottom == top:
        return None, "has no area"
    if size is None:
        return row.box, None
    width, height = size
    slack = CLIP_TOLERANCE if size != (1, 1) else 1e-3
    clipped = (
        min(max(left, 0), width),
        min(max(top, 0), height),
        min(max(right, 0), width),
        min(max(bottom, 0), height),
    )
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        return None, f"lies outside of the picture of {_pixels(size)}"
    beyond = max(abs(one - other) for one, other in zip(clipped, row.box, strict=True))
    return clipped, f"reaches beyond the picture of {_pixels(size)}" if beyond > slack else None


def _pixels(size: tuple[float, float]) -> str:
    return "1 x 1 (parts of it)" if size == (1, 1) else f"{size[0]:g} x {size[1]:g} pixels"
