"""Decoding of image files to uint8 tensors.

JPEG files are decoded by simplejpeg, a binding of libjpeg-turbo that can reduce them while it
decodes; all others by Pillow (a corrupt PNG file can end the whole process in torchvision's
decoder). Transparent images are blended with white, 16 bits per channel are scaled to 8, images are
rotated by their EXIF tag, and of an animation the first frame is read.
"""

from __future__ import annotations

import io
from math import ceil
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as F

from vision_lab.core.files import open_file
from vision_lab.core.text import first_line
from vision_lab.data.encoded_image import EncodedImage

Reduction = Literal[1, 2, 4, 8]
"""Divisor of the sides of an image while it is decoded."""

_JPEG_SIGNATURE = b"\xff\xd8\xff"

_ORIENTATION_TAG = 0x0112

_MAX_EXIF_START = 2 * 65536
"""Bytes of a file in which its EXIF tags start; only other headers come before."""

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000", "TGA", "ICO")
"""Pillow's names of the formats to read; others may start programs (EPS) or contain no image."""

MAX_PIXELS = 100_000_000
"""Default limit of width times height: 300 MB in color."""

_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I")

# Pillow's own limit is disabled: ours is checked before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


class InvalidImageError(Exception):
    """An image or target that cannot be used; the message gives the reason, without the file."""


def read_image(
    path: Path | str,
    *,
    channels: int,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Read an image file.

    Args:
        path: path of the file.
        channels: 1 for grayscale, 3 for RGB; other images are converted.
        max_pixels: images with more pixels are not decoded: a file of a few kilobytes may claim
            gigabytes.

    Returns:
        (channels, H, W) uint8.

    Raises:
        InvalidImageError: if the file is missing, empty, truncated, too large or not an image.
    """
    return ImageFile.open(path, max_pixels=max_pixels).decode(channels=channels)


class ImageFile:
    """An image file in memory, of which only the header was read.

    Args:
        content: content of the file.
        max_pixels: images with more pixels are not decoded.

    Raises:
        InvalidImageError: if it is empty, too large or not an image.
    """

    def __init__(
        self,
        content: bytes,
        *,
        max_pixels: int,
    ) -> None:
        if not content:
            raise InvalidImageError("the file is empty")
        self._content = content
        self._max_pixels = max_pixels
        self._jpeg = _read_jpeg_header(content)
        if self._jpeg is not None:
            _check_num_pixels(self._jpeg.width, self._jpeg.height, max_pixels)

    @classmethod
    def open(cls, path: Path | str, *, max_pixels: int = MAX_PIXELS) -> ImageFile:
        """Read an image file without decoding it.

        Args:
            path: path of the file.
            max_pixels: images with more pixels are not decoded.

        Raises:
            InvalidImageError: if it is missing, empty, too large or not an image.
        """
        try:
            with open_file(path) as file:
                content = file.read()
        except OSError as error:
            raise InvalidImageError(_explain(error)) from error
        return cls(content, max_pixels=max_pixels)

    @property
    def content(self) -> bytes:
        """Content of the file."""
        return self._content

    @property
    def format(self) -> str:
        """Pillow's name of its format."""
        if self._jpeg is not None:
            return "JPEG"
        with Image.open(io.BytesIO(self._content), formats=FORMATS) as image:
            return str(image.format)

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of a JPEG file in pixels; None for formats that cannot be reduced."""
        if self._jpeg is None:
            return None
        if self._jpeg.orientation in _SWAPPING_ORIENTATIONS:
            return self._jpeg.width, self._jpeg.height
        return self._jpeg.height, self._jpeg.width

    def decode(self, *, channels: int, reduction: Reduction = 1) -> Tensor:
        """Decode the image.

        Args:
            channels: 1 for grayscale, 3 for RGB; other images are converted.
            reduction: divisor of both sides, for JPEG files only. Reducing in the frequency domain
                averages pixels and takes a fraction of the time.

        Returns:
            (channels, ceil(H / reduction), ceil(W / reduction)) uint8.

        Raises:
            InvalidImageError: if the image is truncated, corrupt, or cannot be converted.
        """
        try:
            if self._jpeg is not None:
                image: Any = _decode_jpeg(self._content, self._jpeg, channels, reduction)
            else:
                image = Image.open(io.BytesIO(self._content), formats=FORMATS)
            return to_uint8_image(image, channels=channels, max_pixels=self._max_pixels)
        except InvalidImageError:
            raise
        except Exception as error:  # Pillow's plugins raise any exception for corrupt files
            raise InvalidImageError(_explain(error)) from error


def find_path(source: Any) -> str | None:
    """Return the path of an image of a dataset; None if it is not a file."""
    if isinstance(source, EncodedImage):
        return source.path
    return str(source) if isinstance(source, str | Path) else None


def open_source(source: Any, *, max_pixels: int) -> ImageFile | None:
    """Open an image of a dataset without decoding it.

    Args:
        source: a path, a file in memory, or anything else.
        max_pixels: images with more pixels are not decoded.

    Returns:
        The file; None for anything else.

    Raises:
        InvalidImageError: if it is missing, empty, too large or not an image.
    """
    if isinstance(source, EncodedImage):
        return ImageFile(source.content, max_pixels=max_pixels)
    if isinstance(source, str | Path):
        return ImageFile.open(source, max_pixels=max_pixels)
    return None


def read_mask(
    path: Path | str, *, max_pixels: int = MAX_PIXELS, expand_palette: bool = False, white: int = 1
) -> NDArray[np.int32]:
    """Read the values of a mask file.

    Args:
        path: path of the file.
        max_pixels: images with more pixels are not decoded.
        expand_palette: whether to return the colors of a palette instead of its indices.
        white: value of white in a file with one bit per pixel.

    Returns:
        (H, W) gray values or palette indices; or (H, W, 3) colors.

    Raises:
        InvalidImageError: if the file is missing, empty, truncated, too large or not an image.
    """
    try:
        if Path(path).stat().st_size == 0:
            raise InvalidImageError("the file is empty")
        with open_file(path) as file, Image.open(file, formats=FORMATS) as image:
            _check_size(image, max_pixels)
            has_indices = image.mode == "P" and not expand_palette
            keep_mode = has_indices or image.mode in ("1", "L", *_SIXTEEN_BIT_MODES)
            upright = ImageOps.exif_transpose(image)
            values = np.asarray(upright if keep_mode else upright.convert("RGB")).astype(np.int32)
            if image.mode == "1":
                values = values * white
    except InvalidImageError:
        raise
    except Exception as error:  # Pillow's plugins raise any exception for corrupt files
        raise InvalidImageError(_explain(error)) from error
    is_gray = values.ndim == 3 and (values[..., :1] == values).all()
    if is_gray:
        return values[..., 0]
    return values


def to_uint8_image(
    image: Any,
    *,
    channels: int,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Convert an image to a uint8 tensor.

    Args:
        image: a tensor (C, H, W) or (H, W), an array (H, W) or (H, W, C), or a PIL image, with 8 or
            16 bits per channel.
        channels: number of channels; 1 and 3 are converted to each other.
        max_pixels: maximum number of pixels of a PIL image, which may not be decoded yet.

    Returns:
        (channels, H, W) uint8.

    Raises:
        InvalidImageError: if it cannot be converted.
    """
    if isinstance(image, Image.Image):
        _check_size(image, max_pixels)
        image = _from_pil(image)
    elif isinstance(image, np.ndarray):
        image = torch.from_numpy(image)
        if image.ndim == 3:
            image = image.permute(2, 0, 1)
    if not isinstance(image, Tensor) or image.ndim not in (2, 3):
        raise InvalidImageError(
            "an image must be a path, a PIL image, or an array or tensor of 2 or 3 dimensions, got "
            f"{_describe(image)}"
        )
    if image.dtype == torch.uint16:
        image = ((image.to(torch.int32) + 128) // 257).to(torch.uint8)
    if image.dtype != torch.uint8:
        raise InvalidImageError(f"its values are {image.dtype}, not integers of 8 or 16 bits")
    return _convert_channels(image if image.ndim == 3 else image[None], channels)


class _JpegHeader(NamedTuple):
    height: int
    width: int
    orientation: int
    """Value of the EXIF tag, 1 to 8."""


_ORIENTATIONS: dict[int, tuple[bool, tuple[int, ...]]] = {
    1: (False, ()),
    2: (False, (-1,)),
    3: (False, (-2, -1)),
    4: (False, (-2,)),
    5: (True, ()),
    6: (True, (-1,)),
    7: (True, (-2, -1)),
    8: (True, (-2,)),
}
"""By value of the EXIF tag: whether to swap the axes, and the axes to flip afterwards."""

_SWAPPING_ORIENTATIONS = (5, 6, 7, 8)


def _read_jpeg_header(content: bytes) -> _JpegHeader | None:
    """Read the header of a JPEG file; None for other files, and for those simplejpeg cannot read.

    Args:
        content: content of the file.
    """
    if not content.startswith(_JPEG_SIGNATURE):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    if colors not in ("YCbCr", "Gray", "RGB"):
        return None
    return _JpegHeader(height, width, _read_orientation(content))


def _read_orientation(content: bytes) -> int:
    if content.find(b"Exif\0\0", 0, _MAX_EXIF_START) < 0:
        return 1
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # Pillow's parsers raise any exception for corrupt tags
        return 1
    return orientation if orientation in _ORIENTATIONS else 1


def _decode_jpeg(
    content: bytes,
    header: _JpegHeader,
    channels: int,
    reduction: Reduction,
) -> Tensor:
    size = ceil(header.height / reduction), ceil(header.width / reduction)
    try:
        decoded = simplejpeg.decode_jpeg(
            content,
            colorspace="GRAY" if channels == 1 else "RGB",
            min_height=size[0],
            min_width=size[1],
        )
        image = torch.from_numpy(decoded).permute(2, 0, 1)
    except ValueError:  # also for what can be ignored, such as unknown bytes between its parts
        mode = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
        buffer = torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy())
        image = F.resize(decode_image(buffer, mode=mode), list(size), antialias=True)
    swaps_axes, flipped_axes = _ORIENTATIONS[header.orientation]
    if swaps_axes:
        image = image.transpose(-2, -1)
    return image.flip(flipped_axes) if flipped_axes else image


def _check_size(image: Image.Image, max_pixels: int) -> None:
    _check_num_pixels(*image.size, max_pixels)


def _check_num_pixels(
    width: int,
    height: int,
    max_pixels: int,
) -> None:
    if width * height > max_pixels:
        raise InvalidImageError(
            f"it has {width} x {height} pixels, more than data.max_pixels={max_pixels}"
        )


def _from_pil(image: Image.Image) -> Tensor:
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise InvalidImageError("its values are floats, not integers of 8 or 16 bits")
    if image.mode in _SIXTEEN_BIT_MODES:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InvalidImageError("its values are integers of more than 16 bits")
        return torch.from_numpy(values.astype(np.uint16))
    if image.mode in ("1", "L"):
        return torch.from_numpy(np.array(image.convert("L")))[None]
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return torch.from_numpy(np.array(image.convert(mode))).permute(2, 0, 1)


def _convert_channels(image: Tensor, channels: int) -> Tensor:
    actual = image.shape[0]
    if actual == channels:
        return image
    if actual in (2, 4) and channels in (1, 3):
        return _convert_channels(_blend_with_white(image), channels)
    if actual == 1 and channels == 3:
        return image.expand(3, -1, -1).contiguous()
    if actual == 3 and channels == 1:
        gray: Tensor = F.rgb_to_grayscale(image)
        return gray
    raise InvalidImageError(f"it has {actual} channels, but data.spec.channels={channels}")


def _blend_with_white(image: Tensor) -> Tensor:
    color, alpha = image[:-1].to(torch.int32), image[-1:].to(torch.int32)
    return ((color * alpha + 255 * (255 - alpha) + 127) // 255).to(torch.uint8)


def _explain(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image, or has an unsupported format"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    text = first_line(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    if ".cpp:" in text:  # torchvision's messages start with a line of its C++ source
        text = text.rsplit(".cpp:", 1)[-1].split(", ", 1)[-1]
    return text


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return type(value).__name__
