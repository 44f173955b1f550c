"""``data=masks``: images with a mask file each, whose values stand for classes."""

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
from vision_lab.core.files import expand_home
from vision_lab.core.spec import IGNORE_INDEX
from vision_lab.core.text import summarize_names
from vision_lab.data.formats.image_folder import EXTENSIONS, EXTENSIONS_TEXT
from vision_lab.data.formats.layout import find_split
from vision_lab.data.image_io import InvalidImageError, read_mask

MaskValue = int | Sequence[int]
"""A gray value or palette index; or a color, [red, green, blue]."""

GRAY_CODE_OFFSET = 1 << 24
"""Code of gray value 0. Codes of colors, 24 bits, are smaller."""

MAX_LISTED = 12
"""Maximum number of values or files listed in a message."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskEncoding:
    """The values in mask files that stand for classes.

    Attributes:
        num_classes: number of classes.
        class_values: value of each class, either all gray or all colors; None if label k is
            encoded as k.
        ignored_values: values of ignored pixels, unless they stand for a class.

    Raises:
        ConfigurationError: if values are invalid or repeated.
    """

    num_classes: int
    class_values: Sequence[MaskValue] | None = None
    ignored_values: Sequence[MaskValue] = (IGNORE_INDEX,)

    def __post_init__(self) -> None:
        for key in ("class_values", "ignored_values"):
            values = getattr(self, key)
            if values is not None and not _are_mask_values(values):
                raise ConfigurationError(
                    f"data.{key}={values}: type a list of whole numbers of 0 or more, or of colors "
                    "[red,green,blue]"
                )
        if self.class_values is None:
            return
        if len(self.class_values) != self.num_classes:
            raise ConfigurationError(
                f"data.class_values has {len(self.class_values)} entries for {self.num_classes} "
                "classes: type one for each of data.spec.class_names"
            )
        if len({isinstance(value, int) for value in self.class_values}) > 1:
            raise ConfigurationError(
                "data.class_values: type numbers for all classes, or colors [red,green,blue] for "
                "all classes"
            )
        if len({self._to_code(value) for value in self.class_values}) < self.num_classes:
            raise ConfigurationError(
                "data.class_values contains a value twice: it cannot stand for two classes"
            )

    def read(
        self,
        path: Path,
        *,
        max_pixels: int,
    ) -> NDArray[np.uint8]:
        """Read the labels in a mask file.

        Args:
            path: path of the file.
            max_pixels: maximum number of pixels of the mask.

        Returns:
            (H, W), 255 for ignored pixels.

        Raises:
            InvalidImageError: if the file is unreadable, or contains an unknown value.
        """
        white = 255 if 255 in (self.class_values or ()) else 1
        values = read_mask(
            path, max_pixels=max_pixels, expand_palette=self._has_colors, white=white
        )
        codes = self._pixels_to_codes(values)
        known_codes, labels = self._lookup
        indices = np.searchsorted(known_codes, codes).clip(max=len(known_codes) - 1)
        if (known_codes[indices] != codes).any():
            raise InvalidImageError(self._unknown_values_message(path, np.unique(codes)))
        mask: NDArray[np.uint8] = labels[indices]
        return mask

    @cached_property
    def _lookup(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """All known codes, ascending, and the label of each."""
        labels = {self._to_code(value): IGNORE_INDEX for value in self.ignored_values}
        for label, value in enumerate(self.class_values or range(self.num_classes)):
            labels[self._to_code(value)] = label
        codes = sorted(labels)
        return np.array(codes), np.array([labels[code] for code in codes], dtype=np.uint8)

    @property
    def _has_colors(self) -> bool:
        return any(not isinstance(value, int) for value in self.class_values or ())

    def _to_code(self, value: MaskValue) -> int:
        """Convert a gray value or an RGB color of a mask to an integer code."""
        if isinstance(value, int):
            if not self._has_colors:
                return GRAY_CODE_OFFSET + value  # gray values follow the codes of all colors
            value = (value, value, value)  # in a color mask, gray 7 is the color (7, 7, 7)
        red, green, blue = value
        return (red << 16) | (green << 8) | blue

    def _pixels_to_codes(self, values: NDArray[np.int32]) -> NDArray[np.int64]:
        """Convert all values of a mask, (H, W) or (H, W, 3), as ``_to_code`` does."""
        if values.ndim == 2 and self._has_colors:
            values = np.repeat(values[..., None], 3, axis=2)
        if values.ndim == 3:
            return values[..., 0].astype(np.int64) << 16 | values[..., 1] << 8 | values[..., 2]
        return GRAY_CODE_OFFSET + values.astype(np.int64)

    def _unknown_values_message(
        self,
        path: Path,
        codes: NDArray[np.int64],
    ) -> str:
        known = set(self._lookup[0].tolist())
        texts = [_format_code(code) for code in codes.tolist()]
        unknown = []
        for text, code in zip(texts, codes.tolist(), strict=True):
            if code not in known:
                unknown.append(text)
        problem = (
            f"its values {summarize_names(unknown, MAX_LISTED)} stand for no class; it contains "
            f"{summarize_names(texts, MAX_LISTED)}"
        )
        if path.suffix.lower() in (".jpg", ".jpeg"):
            return f"{problem}: JPEG changes values, so masks must be PNG"
        has_colors = codes.max() < GRAY_CODE_OFFSET
        example = "[[0,0,0],[255,0,0],...]" if has_colors else "[0,255,...]"
        if len(texts) == self.num_classes:
            example = f"[{','.join(texts)}]"
        return (
            f"{problem}: type data.class_values={example}, one for each class, and "
            "data.ignored_values=[...] for ignored ones"
        )


@dataclass(frozen=True)
class ImageMaskDataset:
    """A map-style dataset of (path, mask), with a mask file for each image.

    Attributes:
        samples: (image, mask) files.
        encoding: encoding of the masks.
        max_pixels: maximum number of pixels of a mask.
    """

    samples: Sequence[tuple[Path, Path]]
    encoding: MaskEncoding
    max_pixels: int

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def cache_key(self) -> str:
        """What a cache of masks depends on, besides the files."""
        return repr(self.encoding)

    def __getitem__(self, index: int) -> tuple[Path, NDArray[np.uint8]]:
        image, mask = self.samples[index]
        try:
            return image, self.encoding.read(mask, max_pixels=self.max_pixels)
        except InvalidImageError as error:
            raise UnreadableFileError(str(mask), str(error)) from error


def image_masks(
    root: str,
    *,
    split: Literal["train", "val", "test"],
    image_dir: str,
    mask_dir: str,
    mask_suffix: str | None,
    num_classes: int,
    class_values: Sequence[MaskValue] | None,
    ignored_values: Sequence[MaskValue] | None,
    max_pixels: Count,
    on_error: Literal["raise", "skip"],
) -> ImageMaskDataset | None:
    """Create the dataset of a split from images and masks with matching file names.

    The images of a split are in ``<root>/<split>/<image_dir>`` or ``<root>/<image_dir>/<split>``.
    For another layout, ``image_dir`` contains ``{split}``, as in ``images/{split}_2024``. If there
    is no folder of any split, ``<root>/<image_dir>`` is the training split. The same applies to
    ``mask_dir``.

    Args:
        root: folder of the dataset.
        split: the split to load.
        image_dir: name of the image folder.
        mask_dir: name of the mask folder.
        mask_suffix: what mask names add to image names, such as ``_mask`` if the mask of
            ``cat.jpg`` is ``cat_mask.png``.
        num_classes: number of classes.
        class_values: value of each class in the masks; see ``MaskEncoding``.
        ignored_values: mask values that losses and metrics ignore.
        max_pixels: maximum number of pixels of a mask; larger ones count as unreadable.
        on_error: ``raise`` an error if an image has no mask, or ``skip`` such images in training,
            which lists them in ``unreadable.csv``.

    Returns:
        The dataset, or None if there is no such split.

    Raises:
        DataError: if the folders of the training split are missing, a folder is empty, or no image
            has a mask; with ``on_error="raise"`` if any image has none.
    """
    encoding = MaskEncoding(num_classes, class_values, ignored_values or ())
    suffix = mask_suffix or ""
    folders = _find_folders(expand_home(root), image_dir, mask_dir, split)
    if folders is None:
        return None
    image_folder, mask_folder = folders
    images, masks = _index_by_stem(image_folder), _index_by_stem(mask_folder)
    if image_folder == mask_folder and suffix:
        without_suffix = {}
        for name, path in images.items():
            if not name.endswith(suffix):
                without_suffix[name] = path
        images = without_suffix
    if not images:
        raise DataError(f"{image_folder} contains no images (suffixes {EXTENSIONS_TEXT})")
    mask_of = {name: masks.get(name + suffix) for name in images}
    _check_missing_masks(images, mask_of, mask_folder, masks=masks, on_error=on_error)
    used = {*images.values(), *mask_of.values()}  # both may be in the same folder
    _warn_unused([path.name for path in masks.values() if path not in used], mask_folder)
    samples = []
    for stem, path in images.items():
        mask = mask_of[stem]
        if mask is None:
            # Reading this path fails, so that the sample is skipped and listed as unreadable.
            mask = mask_folder / f"{stem}{suffix}.png"
        samples.append((path, mask))
    return ImageMaskDataset(samples, encoding, max_pixels)


def _warn_unused(names: Sequence[str], folder: Path) -> None:
    """Warn about masks that belong to no image."""
    if names:
        shown = summarize_names(names, MAX_LISTED)
        log.warning("ignored %d masks without an image in %s: %s", len(names), folder, shown)


def _find_folders(
    base: Path, image_dir: str, mask_dir: str, split: str
) -> tuple[Path, Path] | None:
    """Return the folders of images and masks; None if a split other than train has neither."""
    image_folder = _find_folder(base, image_dir, split)
    mask_folder = _find_folder(base, mask_dir, split)
    if image_folder is None and mask_folder is None and split != "train":
        return None
    if image_folder is None:
        raise DataError(_missing_message(base, "image_dir", image_dir, split))
    if mask_folder is None:
        raise DataError(_missing_message(base, "mask_dir", mask_dir, split))
    return image_folder, mask_folder


def _check_missing_masks(
    images: Mapping[str, Path],
    mask_of: Mapping[str, Path | None],
    folder: Path,
    *,
    masks: Mapping[str, Path],
    on_error: str,
) -> None:
    """Reject images without masks, unless they may be skipped and others have masks."""
    missing = []
    for name, path in images.items():
        if mask_of[name] is None:
            missing.append(str(path))
    if missing and (on_error == "raise" or len(missing) == len(images)):
        content = summarize_names([path.name for path in masks.values()], 4) or "no images"
        raise DataError(
            f"{len(missing)} of {len(images)} images have no mask of the same name in {folder}: "
            f"{summarize_names(missing, MAX_LISTED)}\nThat folder contains {content}. Fix that, "
            "type data.mask_suffix=... if the names of masks have a suffix (_mask), or type "
            "data.on_error=skip to skip such images and list them."
        )


def _find_folder(
    base: Path,
    name: str,
    split: str,
) -> Path | None:
    """Return the folder with the files of a split, if there is one."""
    if "{split}" in name:
        return find_split(base, split, patterns=(name,), whole=None)
    patterns = (f"{{split}}/{name}", f"{name}/{{split}}")
    return find_split(base, split, patterns=patterns, whole=name)


def _missing_message(
    base: Path,
    key: str,
    name: str,
    split: str,
) -> str:
    if not base.is_dir():
        return f"there is no folder {base}: type data.root=<folder with images and masks>"
    subfolder_names = []
    for path in base.iterdir():
        if path.is_dir():
            subfolder_names.append(path.name)
    subfolders = ", ".join(sorted(subfolder_names))
    purpose = "" if split == "train" else f" for {split}, where it has only one of the two"
    return (
        f"{base} has no folder {name.replace('{split}', split)}{purpose}: its folders are "
        f"{subfolders or 'none'}; type data.{key}=<name of the folder>, below data.root or below "
        "its train/, val/ and test/"
    )


def _index_by_stem(folder: Path) -> dict[str, Path]:
    """Return the images below a folder by relative path without suffix, in order.

    Raises:
        DataError: if two have the same name.
    """
    index: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        is_image = path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
        if is_image and path.is_file():
            stem = str(path.relative_to(folder).with_suffix(""))
            stem = normalize("NFC", stem)  # some file systems store é as two characters
            if stem in index:
                raise DataError(f"{index[stem]} and {path} have the same name: rename one of them")
            index[stem] = path
    return index


def _are_mask_values(values: object) -> bool:
    if not isinstance(values, Sequence) or isinstance(values, str):
        return False
    return all(_is_gray_value(value) or _is_color(value) for value in values)


def _is_gray_value(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_color(value: object) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return len(value) == 3 and all(_is_gray_value(channel) for channel in value)


def _format_code(code: int) -> str:
    if code >= GRAY_CODE_OFFSET:
        return str(code - GRAY_CODE_OFFSET)
    return f"[{code >> 16},{code >> 8 & 255},{code & 255}]"
