"""Boxes in XML files, one a picture, as Pascal VOC has them (Everingham 2010). No torch here: app reads names too."""

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
from vision_lab.data.formats.image_folder import EXTENSIONS, SPLITS

if TYPE_CHECKING:
    from vision_lab.data.formats.box_dataset import BoxAnnotation, BoxDataset

ANNOTATION_DIRS = ("Annotations", "annotations", "labels", "")
"""Folders of XML files below the root, or below a split's folder; the last is that itself."""

IMAGE_DIRS = ("JPEGImages", "images", "Images", "")

MAX_LISTED = 6

MAX_COORDINATE = 1e7
"""Pixels; no picture is as wide or high: what is more counts as no number."""

PARSE_ERRORS = (ParseError, ValueError, OSError, LookupError)
"""What a file that is no XML, or in an unknown encoding, makes the parser raise."""


def boxes(
    root: str,
    *,
    split: Literal["train", "val", "test"],
    class_names: Sequence[str],
    pixel_offset: Literal[0, 1],
    on_error: Literal["raise", "skip"],
) -> BoxDataset | None:
    """The pictures of a split and their boxes.

    The split is what ``ImageSets/Main/<split>.txt`` lists (for train, ``trainval.txt`` too); or the folder
    ``<root>/<split>``; without any of these, all there is is the training split, but for what other lists name.

    Args:
        root: the folder that holds Annotations/ and JPEGImages/, or a like pair; or VOCdevkit/VOC2012 in it.
        split: which pictures.
        class_names: in the order of the labels.
        first_pixel: what the files call the first: 1 in VOC's own, whose last pixel of a box belongs to it; 0 in most
            that were drawn with other programs, whose right and bottom do not.
        on_bad: broken boxes and files stop the run; or are clipped or dropped and listed.

    Returns:
        None where there is no such split.

    Raises:
        DataError: where there are no annotations, or one cannot be read.
    """
    from vision_lab.data.formats.box_dataset import ImageAnnotation, build_box_dataset

    found = _files(_base(root), split)
    if found is None:
        return None
    folder, files = found
    pictures = _pictures(folder)
    told, broken = [], []
    for file in files:
        try:
            tree = _parsed(file)
            rows, size = list(_rows(tree, pixel_offset)), _size(tree)
        except PARSE_ERRORS as error:
            broken.append(
                AnnotationIssue(
                    str(file), str(file), f"cannot be read ({error}): its picture is left out"
                )
            )
            continue
        told.append(ImageAnnotation(_picture(tree, file, pictures), rows, size, file))
    if not told:
        listed = summarize_names([f"{fault.path} {fault.problem}" for fault in broken], MAX_LISTED)
        raise DataError(f"not one of {len(files)} annotations can be read: {listed}")
    absent = [str(each.path) for each in told if not file_exists(each.path)]
    if absent and (on_error == "raise" or len(absent) == len(told)):
        raise DataError(
            f"{len(absent)} of {len(told)} pictures are not there: {summarize_names(absent, MAX_LISTED)}"
        )
    return build_box_dataset(told, class_names=class_names, on_bad=on_error, broken=broken)


def class_names(root: str) -> list[str]:
    """The names of all classes in the files, sorted.

    Raises:
        DataError: where there are none.
    """
    base = _base(root)
    found: set[str] = set()
    for split in SPLITS:
        for file in (_files(base, split) or (base, []))[1]:
            try:
                found |= {
                    (each.findtext("name") or "").strip() for each in _parsed(file).iter("object")
                }
            except PARSE_ERRORS:
                continue  # met again, and named, when the data is set up
    if not found:
        raise DataError(f"the annotations in {base} hold no objects")
    return sorted(found)


def _parsed(file: Path) -> Element:
    """The root of an XML file.

    Raises:
        ParseError, ValueError, OSError, LookupError: if it is none, or larger than any annotation.
    """
    return fromstring(read_bytes(file, max_bytes=MAX_BYTES))


def _base(root: str) -> Path:
    """The folder with the annotations: the root, or the newest year of a VOCdevkit in it."""
    base = Path(root).expanduser()
    if not base.is_dir():
        raise DataError(
            f"there is no folder {base}: type data.root=<folder with Annotations/ and JPEGImages/>"
        )
    years = sorted([*base.glob("VOCdevkit/VOC*/Annotations"), *base.glob("VOC*/Annotations")])
    return years[-1].parent if years else base


def _files(base: Path, split: str) -> tuple[Path, list[Path]] | None:
    """The folder of a split and its annotations; None where there is no such split."""
    found = {name: file for name in (*SPLITS, "trainval") if (file := _list(base, name))}
    file = found.get(split) or (found.get("trainval") if split == "train" else None)
    if file:
        return base, _listed(base, file)
    if "train" in found or "trainval" in found:
        return None
    divided = next((base / name for name in SPLITS[split] if (base / name).is_dir()), None)
    if divided:
        return divided, sorted(_annotation_dir(divided).glob("*.xml"))
    if split != "train":
        return None
    elsewhere = {xml for listed in found.values() for xml in _listed(base, listed)}
    return base, sorted(set(_annotation_dir(base).glob("*.xml")) - elsewhere)


def _list(base: Path, split: str) -> Path | None:
    """The file that lists a split's pictures, if there is one."""
    files = (base / "ImageSets" / "Main" / f"{name}.txt" for name in SPLITS.get(split, (split,)))
    return next((file for file in files if file.is_file()), None)


def _listed(base: Path, file: Path) -> list[Path]:
    """The annotations that a list names, one a line; of a line that is no name the first word."""
    folder = _annotation_dir(base)
    content = read_bytes(file).decode("utf-8", errors="replace")
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    return [
        whole if (whole := folder / f"{line}.xml").is_file() else folder / f"{line.split()[0]}.xml"
        for line in lines
    ]


def _annotation_dir(base: Path) -> Path:
    """Where below a folder the XML files lie."""
    for name in ANNOTATION_DIRS:
        if any((base / name).glob("*.xml")):
            return base / name
    below = ", ".join(sorted(path.name for path in base.iterdir())[:MAX_LISTED])
    raise DataError(
        f"{base} has no XML files in Annotations/, annotations/ or labels/: it has {below or 'nothing'}"
    )


def _pictures(base: Path) -> Path:
    return next(base / name for name in IMAGE_DIRS if (base / name).is_dir())


def _picture(tree: Element, file: Path, pictures: Path) -> Path:
    """The picture that an annotation is of: by its own name, or by the one it says, which outlives a renaming."""
    said = (tree.findtext("filename") or "").strip()
    places = [
        place / f"{file.stem}{end}"
        for place in (pictures, file.parent)
        for end in sorted(EXTENSIONS)
    ]
    places += [pictures / said, file.parent / said] if said else []
    return next(
        (path for path in places if file_exists(path)), pictures / (said or f"{file.stem}.jpg")
    )


def _rows(tree: Element, first_pixel: int) -> Iterator[BoxAnnotation]:
    from vision_lab.data.formats.box_dataset import BoxAnnotation

    for each in tree.findall("object"):
        left, top, right, bottom = (
            _number(each, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")
        )
        yield BoxAnnotation(
            (left - first_pixel, top - first_pixel, right, bottom),
            (each.findtext("name") or "").strip(),
            difficult=(each.findtext("difficult") or "0").strip() == "1",
        )


def _size(tree: Element) -> tuple[float, float] | None:
    if tree.find("size") is None:
        return None
    width, height = _number(tree, "size/width"), _number(tree, "size/height")
    return (width, height) if width > 0 and height > 0 else None  # some programs write 0


def _number(tree: Element, path: str) -> float:
    text = tree.findtext(path)
    if text is None:
        raise ValueError(f"it has no {path}")
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"its {path} is {text.strip()!r}, no number") from None
    return number if abs(number) <= MAX_COORDINATE else nan
