"""Boxes in text files, one for each picture, as YOLO's programs have them. No torch here: app reads names too.

A line is ``class x y width height`` in parts of the picture, x and y of the box's centre; or an outline, ``class x1 y1
x2 y2 ...``, of which the box around it is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vision_lab.core.documents import DocumentError, read_text, read_yaml
from vision_lab.core.errors import AnnotationIssue, DataError
from vision_lab.core.spec import MAX_CLASSES
from vision_lab.core.text import summarize_names
from vision_lab.data.formats.image_folder import EXTENSIONS, SPLITS

if TYPE_CHECKING:
    from vision_lab.data.formats.box_dataset import BoxAnnotation, BoxDataset

CLASS_NAME_FILES = (
    "data.yaml",
    "data.yml",
    "dataset.yaml",
    "classes.txt",
    "obj.names",
    "labels/classes.txt",
)
"""Where the names of the classes are looked for below the root."""

MAX_LISTED = 6


def boxes(
    root: str,
    *,
    split: Literal["train", "val", "test"],
    class_names: Sequence[str],
    on_error: Literal["raise", "skip"],
) -> BoxDataset | None:
    """The pictures of a split and their boxes; a picture without a text file has none.

    A split lies where ``data.yaml`` says; or in ``images/<split>`` and ``labels/<split>``; or in ``<split>/images`` and
    ``<split>/labels``; without any of these ``images`` and ``labels`` are the training split.

    Args:
        root: the folder.
        split: which pictures.
        class_names: in the order of the files' numbers.
        on_bad: broken boxes stop the run; or are clipped or dropped and listed.

    Returns:
        None where there is no such split.

    Raises:
        DataError: where there are no pictures, or a text file cannot be read.
    """
    from vision_lab.data.formats.box_dataset import ImageAnnotation, build_box_dataset

    base = _base(root)
    folder = _image_dir(base, split)
    if folder is None:
        return None
    pictures = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file()
    )
    if not pictures:
        raise DataError(
            f"{folder} holds no pictures (files that end with {', '.join(sorted(EXTENSIONS))})"
        )
    told, broken = [], []
    for path in pictures:
        file = _labels(path)
        try:
            told.append(
                ImageAnnotation(
                    path, list(_rows(file, class_names)) if file.is_file() else [], (1, 1), file
                )
            )
        except (ValueError, OSError) as error:
            broken.append(
                AnnotationIssue(
                    str(path), str(file), f"its text file cannot be read ({error}): it is left out"
                )
            )
    if not told:
        listed = summarize_names([f"{fault.path}: {fault.problem}" for fault in broken], MAX_LISTED)
        raise DataError(f"not one of {len(pictures)} text files can be read: {listed}")
    if not any(_labels(path).is_file() for path in pictures):
        raise DataError(
            f"not one picture in {folder} has a text file; looked for {_labels(pictures[0])}"
        )
    return build_box_dataset(
        told, class_names=class_names, on_bad=on_error, broken=broken, relative=True
    )


def class_names(root: str) -> list[str]:
    """The names of the classes, from ``data.yaml`` or a list of names, one a line.

    Raises:
        DataError: where there is neither.
    """
    base = _base(root)
    for name in CLASS_NAME_FILES:
        file = base / name
        if file.is_file():
            if file.suffix in (".txt", ".names"):
                try:
                    content = read_text(file)
                except DocumentError as error:
                    raise DataError(f"{file} is no list of names: {error}") from error
                return _ordered_names(
                    file, dict(enumerate(map(str.strip, content.rstrip().splitlines())))
                )
            found = _data_yaml(base).get("names")
            if isinstance(found, dict | list):
                return _ordered_names(
                    file, found if isinstance(found, dict) else dict(enumerate(found))
                )
    raise DataError(
        f"{base} says no names of classes (looked for {', '.join(CLASS_NAME_FILES)}): type data.spec.class_names=[...]"
    )


def _ordered_names(file: Path, found: dict[Any, Any]) -> list[str]:
    """Names in the order of their numbers; a number without one is called unused."""
    try:
        named = {
            int(number): _name(name) for number, name in found.items() if name not in (None, "")
        }
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"{file}: names are to be a list of text, or a whole number for each name"
        ) from None
    if not named or min(named) < 0:
        raise DataError(f"{file} says no names of classes: a line or an entry for each is needed")
    if max(named) >= MAX_CLASSES:
        raise DataError(
            f"{file} numbers a class {max(named)}: {MAX_CLASSES:,} classes are the most"
        )
    return [named.get(number, f"unused {number}") for number in range(max(named) + 1)]


def _name(name: Any) -> str:
    if not isinstance(name, str | int | float):
        raise TypeError
    return str(name)


def _class_number(word: str) -> int:
    """The number of a class, which some programs write as 3.0.

    Raises:
        ValueError: if it is no whole number.
    """
    number = float(word)
    if number != int(number):
        raise ValueError
    return int(number)


def _base(root: str) -> Path:
    base = Path(root).expanduser()
    if not base.is_dir():
        raise DataError(
            f"there is no folder {base}: type data.root=<folder with images/, labels/ and data.yaml>"
        )
    return base


def _data_yaml(base: Path) -> dict[str, Any]:
    for name in CLASS_NAME_FILES[:3]:
        if (base / name).is_file():
            try:
                content = read_yaml(base / name)
            except DocumentError as error:
                raise DataError(f"{base / name} cannot be read: {error}") from error
            return content if isinstance(content, dict) else {}
    return {}


def _image_dir(base: Path, split: str) -> Path | None:
    """Where the pictures of a split lie, if anywhere."""
    settings = _data_yaml(base)
    said = next((settings[name] for name in SPLITS[split] if settings.get(name)), None)
    if said is not None and (not isinstance(said, str) or said.endswith(".txt")):
        raise DataError(f"data.yaml in {base} says {split}: {said}; a folder is needed, not a list")
    aliases = [
        *SPLITS[split],
        *(f"{name}2017" for name in SPLITS[split]),
    ]  # as COCO's are converted
    places = [base / name / "images" for name in aliases] + [
        base / "images" / name for name in aliases
    ]
    if said:
        inside = Path(str(settings.get("path") or "")) / said
        # A folder may have moved since, so that its own place comes before what is written, and '../' is what Roboflow
        # puts before a folder that lies beside the file.
        places = [base / said, base / said.removeprefix("../"), base / inside, *places]
    if found := next((place for place in places if place.is_dir()), None):
        return found
    divided = any(
        (base / "images" / n).is_dir() or (base / n / "images").is_dir() for n in SPLITS["train"]
    )
    if split != "train" or divided:
        return None
    if not (base / "images").is_dir():
        below = ", ".join(sorted(path.name for path in base.iterdir())[:MAX_LISTED])
        raise DataError(
            f"{base} has no folder images/ nor train/images/: it has {below or 'nothing'}"
        )
    return base / "images"


def _labels(picture: Path) -> Path:
    """The text file of a picture: the last ``images`` of its path says ``labels``."""
    parts = list(picture.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _rows(file: Path, class_names: Sequence[str]) -> Iterator[BoxAnnotation]:
    from vision_lab.data.formats.box_dataset import BoxAnnotation

    for place, line in enumerate(read_text(file).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            number, values = _class_number(words[0]), [float(word) for word in words[1:]]
        except (ValueError, OverflowError):
            raise ValueError(
                f"line {place} holds more than numbers"
            ) from None  # it is not quoted: it may be a secret
        name = class_names[number] if 0 <= number < len(class_names) else f"class {number}"
        if len(values) == 4:
            x, y, width, height = values
            yield BoxAnnotation(
                (x - width / 2, y - height / 2, x + width / 2, y + height / 2), name
            )
        elif len(values) >= 6 and len(values) % 2 == 0:
            yield BoxAnnotation(
                (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])), name
            )
        else:
            raise ValueError(
                f"line {place} has {len(words)} numbers: a class and four, or a class and an outline"
            )
