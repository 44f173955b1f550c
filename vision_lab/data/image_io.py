"""From a file to a uint8 tensor, whatever the file holds.

JPEG is decoded straight to a tensor by torchvision, the rest by Pillow. (A damaged PNG ends the whole process in
torchvision's decoder, and Pillow's takes a fifth more time.) A transparent picture is laid on white, 16 bits a channel
are scaled to 8, a turned one (EXIF) is put upright, and of an animation the first frame is taken.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as F

from vision_lab.core.files import open_file
from vision_lab.core.text import first_line

_JPEG = b"\xff\xd8\xff"

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000", "TGA", "ICO")
"""Pillow's names of what is read: others can start programs (EPS) or hold anything but a picture."""

MAX_PIXELS = 100_000_000
"""Width times height of the largest picture that is decoded, unless another number is typed: 300 MB of colour."""

Image.MAX_IMAGE_PIXELS = (
    None  # our own limit, which is asked before anything is decoded, stands in for Pillow's
)


class InvalidImageError(Exception):
    """The text says why; the caller knows which file."""


def read_image(path: Path | str, *, channels: int, max_pixels: int = MAX_PIXELS) -> Tensor:
    """The picture in a file.

    Args:
        path: the file.
        channels: 1 for grey, 3 for colour; the picture is converted where it differs.
        max_pixels: a picture of more is not decoded: a file of kilobytes can ask for gigabytes.

    Returns:
        (channels, H, W) uint8.

    Raises:
        UnreadablePictureError: where the file is missing, empty, cut short, too large or no picture.
    """
    try:
        with open_file(path) as file:
            content = np.fromfile(file, dtype=np.uint8)
        if content.size == 0:
            raise InvalidImageError("the file is empty")
        return to_uint8_image(
            _decoded(content, channels, max_pixels), channels=channels, max_pixels=max_pixels
        )
    except InvalidImageError:
        raise
    except Exception as error:  # Pillow's plugins raise what they like at a broken file
        raise InvalidImageError(_reason(error)) from error


def read_mask(
    path: Path | str, *, max_pixels: int = MAX_PIXELS, colours: bool = False, white: int = 1
) -> NDArray[np.int32]:
    """What a file of a mask holds: (H, W) numbers, of a palette the places in it; (H, W, 3) of one in colours.

    Args:
        path: the file.
        max_pixels: a picture of more is not decoded.
        colours: of a palette, take the colours instead.
        white: what white is called in a file of one bit a pixel.

    Raises:
        UnreadablePictureError: where the file is missing, empty, cut short, too large or no picture.
    """
    try:
        if Path(path).stat().st_size == 0:
            raise InvalidImageError("the file is empty")
        with open_file(path) as file, Image.open(file, formats=FORMATS) as image:
            _check_size(image, max_pixels)
            plain = image.mode in ("1", "L", "I;16", "I;16B", "I;16L", "I") or (
                image.mode == "P" and not colours
            )
            upright = ImageOps.exif_transpose(image)
            values = np.asarray(upright if plain else upright.convert("RGB")).astype(np.int32)
            values = values * white if image.mode == "1" else values
    except InvalidImageError:
        raise
    except Exception as error:  # Pillow's plugins raise what they like at a broken file
        raise InvalidImageError(_reason(error)) from error
    grey = values.ndim == 3 and (values[..., :1] == values).all()
    return values[..., 0] if grey else values


def to_uint8_image(image: Any, *, channels: int, max_pixels: int = MAX_PIXELS) -> Tensor:
    """A picture from wherever it comes as a tensor of ``channels`` channels.

    Args:
        image: a tensor (C, H, W) or (H, W), an array (H, W) or (H, W, C), or a PIL image; integers of 8 or 16 bits.
        channels: 1 and 3 are converted into one another.
        max_pixels: a PIL image of more, which may not be decoded yet, is refused.

    Returns:
        (channels, H, W) uint8.

    Raises:
        UnreadablePictureError: where that cannot be done.
    """
    if isinstance(image, Image.Image):
        _check_size(image, max_pixels)
        image = _from_pil(image)
    elif isinstance(image, np.ndarray):
        image = torch.from_numpy(image)
        image = image.permute(2, 0, 1) if image.ndim == 3 else image
    if not isinstance(image, Tensor) or image.ndim not in (2, 3):
        raise InvalidImageError(
            f"a picture is a path, a PIL image, an array or a tensor of 2 or 3 dimensions, got {_kind(image)}"
        )
    if image.dtype == torch.uint16:
        image = ((image.to(torch.int32) + 128) // 257).to(torch.uint8)
    if image.dtype != torch.uint8:
        raise InvalidImageError(f"its values are {image.dtype}, not whole numbers of 8 or 16 bits")
    return _with_channels(image if image.ndim == 3 else image[None], channels)


def _decoded(content: np.ndarray[Any, Any], channels: int, max_pixels: int) -> Tensor | Image.Image:
    # This reads what the file says of itself, and no pixels.
    picture = Image.open(io.BytesIO(content.data), formats=FORMATS)
    _check_size(picture, max_pixels)
    if content[: len(_JPEG)].tobytes() != _JPEG:
        return picture
    mode = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
    decoded: Tensor = decode_image(
        torch.from_numpy(content), mode=mode, apply_exif_orientation=True
    )
    return decoded


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        raise InvalidImageError(
            f"it has {width} x {height} pixels, more than data.max_pixels={max_pixels}: it is not decoded"
        )


def _from_pil(image: Image.Image) -> Tensor:
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        if image.mode == "F":
            raise InvalidImageError(
                "its values are floating-point numbers, not whole numbers of 8 or 16 bits"
            )
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InvalidImageError("its values are whole numbers of more than 16 bits")
        return torch.from_numpy(values.astype(np.uint16))
    if image.mode in ("1", "L"):
        return torch.from_numpy(np.array(image.convert("L")))[None]
    if image.has_transparency_data:
        return torch.from_numpy(np.array(image.convert("RGBA"))).permute(2, 0, 1)
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _with_channels(image: Tensor, channels: int) -> Tensor:
    found = image.shape[0]
    if found == channels:
        return image
    if found in (2, 4) and channels in (1, 3):
        return _with_channels(_on_white(image), channels)
    if found == 1 and channels == 3:
        return image.expand(3, -1, -1).contiguous()
    if found == 3 and channels == 1:
        grey: Tensor = F.rgb_to_grayscale(image)
        return grey
    raise InvalidImageError(f"it has {found} channels, data.spec.channels={channels}")


def _on_white(image: Tensor) -> Tensor:
    colour, alpha = image[:-1].to(torch.int32), image[-1:].to(torch.int32)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).to(torch.uint8)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is no picture, or of a kind that cannot be read"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    text = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
    # torchvision puts the place in its C++ source before the sentence
    return text.rsplit(".cpp:", 1)[-1].split(", ", 1)[-1] if ".cpp:" in text else text


def _kind(image: Any) -> str:
    return (
        f"a tensor of shape {tuple(image.shape)}"
        if isinstance(image, Tensor)
        else type(image).__name__
    )
