"""``data=masks`` and its kin: pictures with a mask each, whose values stand for classes in one of several ways."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from vision_lab.core.arguments import Count
from vision_lab.core.errors import ConfigurationError, DataError, UnreadableFileError
from vision_lab.core.spec import IGNORE_INDEX
from vision_lab.core.text import summarize_names
from vision_lab.data.formats.image_folder import EXTENSIONS, SPLITS
from vision_lab.data.image_io import InvalidImageError, read_mask

MaskValue = int | Sequence[int]
"""A grey value or a place in a palette; or a colour, [red, green, blue]."""

GRAY_CODE_OFFSET = 1 << 24
"""Above the code of any colour: a number's code begins here."""

MAX_LISTED = 12
"""Values or files that an error names."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskEncoding:
    """How a file says which class a pixel is of.

    Attributes:
        classes: how many there are.
        written: the value that stands for each class, all numbers or all colours; None: class k is written as k.
        ignored: values of pixels that do not count, but where they stand for a class.
    """

    classes: int
    class_values: Sequence[MaskValue] | None = None
    ignored_values: Sequence[MaskValue] = (IGNORE_INDEX,)

    def __post_init__(self) -> None:
        for key, values in (
            ("data.class_values", self.class_values),
            ("data.ignored_values", self.ignored_values),
        ):
            if values is not None and not _numbers_or_colours(values):
                raise ConfigurationError(
                    f"{key}={values}: type a list of whole numbers of 0 or more, or of colours [red,green,blue]"
                )
        if self.class_values is not None and len(self.class_values) != self.classes:
            raise ConfigurationError(
                f"data.class_values has {len(self.class_values)} entries for {self.classes} classes: type one for each of "
                "data.spec.class_names"
            )
        if len({isinstance(value, int) for value in self.class_values or ()}) > 1:
            raise ConfigurationError(
                "data.class_values: type numbers for all classes, or a colour [red,green,blue] for each"
            )
        if (
            self.class_values is not None
            and len({self._code(value) for value in self.class_values}) < self.classes
        ):
            raise ConfigurationError(
                "data.class_values has an entry twice: two classes cannot be told apart"
            )

    def mask(self, path: Path, *, max_pixels: int) -> NDArray[np.uint8]:
        """The classes in a file: (H, W), 255 where they do not count.

        Raises:
            UnreadablePictureError: where the file cannot be read or holds a value that stands for nothing.
        """
        white = 255 if 255 in (self.class_values or ()) else 1
        found = self._coded(
            read_mask(path, max_pixels=max_pixels, colours=self._coloured, white=white)
        )
        codes, classes = self._table
        places = np.searchsorted(codes, found).clip(max=len(codes) - 1)
        if (codes[places] != found).any():
            raise InvalidImageError(
                self._unknown_values_message(path, np.unique(found), known=codes)
            )
        mask: NDArray[np.uint8] = classes[places]
        return mask

    @cached_property
    def _table(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """All values that mean something as whole numbers, rising, and the class of each."""
        known = {self._code(value): IGNORE_INDEX for value in self.ignored_values}
        known |= {
            self._code(value): k for k, value in enumerate(self.class_values or range(self.classes))
        }
        return np.array(sorted(known)), np.array(
            [known[code] for code in sorted(known)], dtype=np.uint8
        )

    @property
    def _coloured(self) -> bool:
        return any(not isinstance(value, int) for value in self.class_values or ())

    def _code(self, value: MaskValue) -> int:
        if isinstance(value, int) and not self._coloured:
            return GRAY_CODE_OFFSET + value
        red, green, blue = (
            (value, value, value) if isinstance(value, int) else value
        )  # grey among colours
        return red << 16 | green << 8 | blue

    def _coded(self, raw: NDArray[np.int32]) -> NDArray[np.int64]:
        if raw.ndim == 2 and self._coloured:
            raw = np.repeat(raw[..., None], 3, axis=2)
        if raw.ndim == 3:
            return raw[..., 0].astype(np.int64) << 16 | raw[..., 1] << 8 | raw[..., 2]
        return GRAY_CODE_OFFSET + raw.astype(np.int64)

    def _unknown_values_message(
        self, path: Path, found: NDArray[np.int64], *, known: NDArray[np.int64]
    ) -> str:
        colours = found.max() < GRAY_CODE_OFFSET
        shown = [
            f"[{v >> 16},{v >> 8 & 255},{v & 255}]" if colours else str(v - GRAY_CODE_OFFSET)
            for v in found.tolist()
        ]
        strange = [text for text, value in zip(shown, found, strict=True) if value not in known]
        what = f"its values {summarize_names(strange, MAX_LISTED)} stand for no class; it holds {summarize_names(shown, MAX_LISTED)}"
        fitting = f"[{','.join(shown)}]" if len(shown) == self.classes else None
        if path.suffix.lower() in (".jpg", ".jpeg"):
            return f"{what}: JPEG changes values, so masks are to be PNG"
        typed = fitting or ("[[0,0,0],[255,0,0],...]" if colours else "[0,255,...]")
        return f"{what}: type data.class_values={typed}, one for each class, and data.ignored_values=[...] for those not to count"


@dataclass(frozen=True)
class ImageMaskDataset:
    """A map-style data set of (path, mask), one file each."""

    samples: Sequence[tuple[Path, Path]]
    values: MaskEncoding
    max_pixels: int

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Path, NDArray[np.uint8]]:
        picture, mask = self.samples[index]
        try:
            return picture, self.values.mask(mask, max_pixels=self.max_pixels)
        except InvalidImageError as error:
            raise UnreadableFileError(str(mask), str(error)) from error


def image_masks(
    root: str,
    *,
    split: Literal["train", "val", "test"],
    image_dir: str,
    mask_dir: str,
    mask_suffix: str | None,
    classes: int,
    class_values: Sequence[MaskValue] | None,
    ignored_values: Sequence[MaskValue] | None,
    max_pixels: Count,
    on_error: Literal["raise", "skip"],
) -> ImageMaskDataset | None:
    """The pictures of one split and the masks of the same names.

    A split lies in ``<root>/<split>/<pictures>`` or ``<root>/<pictures>/<split>``, or where ``pictures`` says it by
    ``{split}``; where there are none of these, ``<root>/<pictures>`` is the training split.

    Args:
        root: the folder.
        split: which pictures.
        pictures: the name of the folder of pictures.
        masks: of that of masks.
        suffix: what the name of a mask has besides that of its picture: ``_mask`` for ``cat.jpg`` and ``cat_mask.png``.
        classes: how many there are.
        values: what stands for each in a mask; see ``Values``.
        ignored: values of pixels that do not count.
        max_pixels: a mask of more is not decoded.
        on_bad: stop where a picture has no mask; or let it be left out, counted and listed, as a file that is bad.

    Returns:
        None where the folder has no such split of its own.

    Raises:
        DataError: where the folders are not there or are empty, or a picture has no mask.
    """
    meaning = MaskEncoding(classes, class_values, ignored_values or ())
    mask_suffix = mask_suffix or ""
    base = Path(root).expanduser()
    folders = [_folder(base, name, split) for name in (image_dir, mask_dir)]
    if split != "train" and folders == [None, None]:
        return None
    for folder, key, name in zip(
        folders, ("image_dir", "mask_dir"), (image_dir, mask_dir), strict=True
    ):
        if folder is None:
            raise DataError(_missing(base, key, name, split))
    assert folders[0]
    assert folders[1]
    found, drawn = _index_by_stem(folders[0]), _index_by_stem(folders[1])
    if folders[0] == folders[1] and mask_suffix:  # one folder for both
        found = {name: path for name, path in found.items() if not name.endswith(mask_suffix)}
    if not found:
        raise DataError(
            f"{folders[0]} holds no pictures (files that end with {', '.join(sorted(EXTENSIONS))})"
        )
    partners = {name: drawn.get(name + mask_suffix) for name in found}
    _check_missing_masks(found, partners, folders[1], held=drawn, on_bad=on_error)
    unused = [
        str(path) for name, path in drawn.items() if name.removesuffix(mask_suffix) not in found
    ]
    if unused:
        log.warning(
            "%s: %d masks have no picture and are left out: %s",
            folders[1],
            len(unused),
            summarize_names(unused, MAX_LISTED),
        )
    # A mask that is missing is met as a file that cannot be read.
    samples = [
        (path, partners[name] or folders[1] / f"{name}{mask_suffix}.png")
        for name, path in found.items()
    ]
    return ImageMaskDataset(samples, meaning, max_pixels)


def _check_missing_masks(
    found: Mapping[str, Path],
    partners: Mapping[str, Path | None],
    folder: Path,
    *,
    held: Mapping[str, Path],
    on_bad: str,
) -> None:
    """Refuse pictures without masks, unless some have theirs and bad files are to be left out."""
    alone = [str(path) for name, path in found.items() if partners[name] is None]
    if alone and (on_bad == "raise" or len(alone) == len(found)):
        raise DataError(
            f"{len(alone)} of {len(found)} pictures have no mask of their name in {folder}: {summarize_names(alone, MAX_LISTED)}\n"
            f"That folder holds {summarize_names([path.name for path in held.values()], 4) or 'no pictures'}. "
            "Mend that, type data.mask_suffix=... where masks' names end differently (_mask), or type data.on_error=skip to "
            "leave such pictures out, counted and listed."
        )


def _folder(base: Path, name: str, split: str) -> Path | None:
    """Where the files of a split lie, if anywhere."""
    if "{split}" in name:
        places = [base / name.replace("{split}", alias) for alias in SPLITS[split]]
    else:
        divided = any(
            (base / alias / name).is_dir() or (base / name / alias).is_dir()
            for alias in SPLITS["train"]
        )
        places = [
            place for alias in SPLITS[split] for place in (base / alias / name, base / name / alias)
        ]
        places = places if divided else [base / name] if split == "train" else []
    return next((place for place in places if place.is_dir()), None)


def _missing(base: Path, key: str, name: str, split: str) -> str:
    if not base.is_dir():
        return f"there is no folder {base}: type data.root=<folder with a folder of pictures and one of masks>"
    name = name.replace("{split}", split)
    below = sorted(path.name for path in base.iterdir() if path.is_dir())
    return (
        f"{base} has no folder {name}{'' if split == 'train' else f' for {split}, where it has one of the two'}: "
        f"it has {', '.join(below) or 'none'}; type data.{key}=<the folder of {key}>, "
        "below data.root or below its train/, val/ and test/"
    )


def _index_by_stem(folder: Path) -> dict[str, Path]:
    """name without its end: path, of all pictures below a folder, in order.

    Raises:
        DataError: where two have one name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix.lower() in EXTENSIONS and not path.name.startswith("."):
            name = normalize(
                "NFC", str(path.relative_to(folder).with_suffix(""))
            )  # é is two letters to some systems
            if name in found:
                raise DataError(
                    f"{found[name]} and {path} have one name: which is of the pair? Rename one"
                )
            found[name] = path
    return found


def _numbers_or_colours(values: object) -> bool:
    if not isinstance(values, Sequence) or isinstance(values, str):
        return False
    return all(_is_number(value) or _is_colour(value) for value in values)


def _is_number(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_colour(value: object) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return len(value) == 3 and all(_is_number(part) for part in value)
