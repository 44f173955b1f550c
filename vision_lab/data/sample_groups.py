"""Groups of samples that belong together, such as the images of a patient, from folders or a file.

A group is never divided between training and test images, which would make scores too good.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path, PurePath

from vision_lab.core.documents import DocumentError, read_text
from vision_lab.core.errors import DataError
from vision_lab.core.files import expand_home
from vision_lab.core.protocols import Dataset
from vision_lab.core.text import summarize_names
from vision_lab.data.fingerprint import list_paths

FOLDER = "folder"
"""Value of ``data.groups`` for which the images in folders of one name are a group."""

COLUMNS = ("image", "group")
"""Columns of the CSV file."""

MAX_BYTES = 500_000_000
"""Maximum size of the CSV file."""

MAX_LISTED = 5
"""Maximum number of images that an error names."""


def find_groups(dataset: Dataset, source: str) -> list[str]:
    """Find the group of each sample.

    Args:
        dataset: a dataset of image files.
        source: ``folder`` for the name of the folder that an image lies in; otherwise the path of
            a CSV file with the columns ``image``, the last parts of the path of an image, and
            ``group``.

    Returns:
        The name of the group of each sample.

    Raises:
        DataError: if the images are not files, or the file cannot be used.
    """
    paths = list_paths(dataset)
    if paths is None:
        raise DataError(
            f"data.groups={source} requires images in files, which this data does not have: "
            "type null"
        )
    if source == FOLDER:
        return [path.parent.name for path in paths]
    return _look_up(paths, _read_groups(expand_home(source)), source)


def _read_groups(file: Path) -> dict[tuple[str, ...], str]:
    """Read the group of each path, by its parts."""
    try:
        text = read_text(file, max_bytes=MAX_BYTES).removeprefix("\ufeff")  # written by Excel
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if not set(COLUMNS) <= set(rows.fieldnames or ()):
            shown = ", ".join(rows.fieldnames or ()) or "none"
            raise DataError(
                f"data.groups={file}: requires the columns {' and '.join(COLUMNS)}, has {shown}"
            )
        groups: dict[tuple[str, ...], str] = {}
        for row in rows:
            image, group = row["image"], row["group"]
            if not image or not group:
                raise DataError(f"data.groups={file}: line {rows.line_num} is incomplete")
            parts = PurePath(image).parts
            if groups.setdefault(parts, group) != group:
                raise DataError(f"data.groups={file}: {image} is in two groups")
    except (DocumentError, OSError, csv.Error) as error:
        raise DataError(
            f"data.groups={file}: {error}: type folder, or the path of a CSV file"
        ) from error
    return groups


def _look_up(paths: Sequence[Path], groups: dict[tuple[str, ...], str], source: str) -> list[str]:
    """Return the group of each path: that of the longest of its ends in the file."""
    found: list[str] = []
    missing: list[str] = []
    known: dict[tuple[str, ...], Path] = {}
    for path in paths:
        parts = path.absolute().parts
        ends = [parts[start:] for start in range(len(parts))]
        end = next((end for end in ends if end in groups), None)
        if end is None:
            missing.append(str(path))
        elif known.setdefault(end, path) != path:
            raise DataError(
                f"data.groups={source}: {'/'.join(end)} is the end of several paths, such as "
                f"{known[end]} and {path}: write more of the path into the column image"
            )
        else:
            found.append(groups[end])
    if missing:
        raise DataError(
            f"data.groups={source}: {len(missing)} images have no group: "
            f"{summarize_names(missing, MAX_LISTED)}"
        )
    return found
