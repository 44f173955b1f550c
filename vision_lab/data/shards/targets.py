"""Masks and boxes as files in shards."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision_lab.core.documents import check_depth
from vision_lab.core.spec import IGNORE_INDEX
from vision_lab.core.text import first_line
from vision_lab.data.image_io import InvalidImageError

BOX_COLUMNS: Mapping[str, Any] = {
    "boxes": np.float32,
    "labels": np.int64,
    "crowd": np.bool_,
    "difficult": np.bool_,
    "area": np.float32,
}
"""Types of the columns of boxes; the first two are required."""

VALUE_TYPES: Mapping[str, tuple[type, ...]] = {
    "boxes": (int, float),
    "labels": (int,),
    "crowd": (bool,),
    "difficult": (bool,),
    "area": (int, float, type(None)),
}
"""Types of their values in JSON."""


def encode_mask(target: Any) -> bytes:
    """Encode a mask as a PNG file.

    Args:
        target: (H, W) integers from 0 to 255.

    Raises:
        InvalidImageError: if it has other values.
    """
    mask = np.asarray(target)
    if mask.ndim != 2 or mask.dtype.kind not in "iub":
        raise InvalidImageError(f"its mask has shape {mask.shape} and values {mask.dtype}")
    if mask.size and (mask.min() < 0 or mask.max() > IGNORE_INDEX):
        limits = f"{int(mask.min())} to {int(mask.max())}"
        raise InvalidImageError(f"its mask contains values of {limits}, not of 0 to {IGNORE_INDEX}")
    return encode_png(mask.astype(np.uint8))


def decode_mask(content: bytes, *, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a mask.

    Args:
        content: a PNG file of gray values.
        max_pixels: masks with more pixels are not decoded.

    Returns:
        (H, W) uint8.

    Raises:
        InvalidImageError: if it is not such a file.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.width * image.height > max_pixels:
                raise InvalidImageError(f"its mask has more than {max_pixels:,} pixels")
            if image.mode not in ("L", "P"):
                raise InvalidImageError(f"its mask has the mode {image.mode}, not gray values")
            return np.array(image, dtype=np.uint8)
    except InvalidImageError:
        raise
    except Exception as error:  # Pillow's plugins raise any exception for corrupt files
        raise InvalidImageError(f"its mask cannot be read: {first_line(error)}") from error


def encode_boxes(target: Mapping[str, Any]) -> bytes:
    """Encode boxes as a JSON file, without loss.

    Args:
        target: the target of a sample, see ``core.protocols.Dataset``.
    """
    content: dict[str, Any] = {}
    for name, dtype in BOX_COLUMNS.items():
        if name in target:
            values = np.asarray(target[name]).astype(dtype)
            content[name] = _without_nan(values.tolist())
    size = target.get("size")
    content["size"] = None if size is None else [int(length) for length in size]
    content["relative"] = bool(target.get("relative", False))
    return json.dumps(content, separators=(",", ":")).encode()


def decode_boxes(content: bytes) -> dict[str, Any]:
    """Decode boxes.

    Args:
        content: a JSON file, as of ``encode_boxes``.

    Returns:
        The target, see ``core.protocols.Dataset``.

    Raises:
        InvalidImageError: if it is not such a file.
    """
    try:
        values = json.loads(content)
        check_depth(values)
        target: dict[str, Any] = {}
        for name, dtype in BOX_COLUMNS.items():
            if name in values:
                _check_types(name, values[name])
                target[name] = np.array(values[name], dtype=dtype)
        target["boxes"] = target["boxes"].reshape(-1, 4)
        target["labels"] = target["labels"].reshape(-1)
        size = values.get("size")
        target["size"] = None if size is None else (int(size[0]), int(size[1]))
        target["relative"] = bool(values.get("relative", False))
    except (ArithmeticError, AttributeError, RecursionError) as error:
        raise InvalidImageError(f"its boxes cannot be read: {first_line(error)}") from error
    except (LookupError, ValueError, TypeError) as error:
        reason = first_line(error)
        raise InvalidImageError(
            f"its boxes must be JSON with boxes (x1, y1, x2, y2) and labels: {reason}"
        ) from error
    return target


def _check_types(name: str, values: Any) -> None:
    """Check the types of the values of a column, which numpy would convert."""
    for value in chain.from_iterable(values) if name == "boxes" else values:
        if type(value) not in VALUE_TYPES[name]:
            raise ValueError(f"{name} contain {value!r}")


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode an image (H, W) or (H, W, 3) as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def _without_nan(values: Any) -> Any:
    """Replace numbers that JSON does not have by None."""
    if isinstance(values, list):
        return [_without_nan(value) for value in values]
    return None if isinstance(values, float) and math.isnan(values) else values
