"""Tensors to pictures: pure functions, no files, no task."""

import io
import json
from collections.abc import Sequence
from math import ceil
from textwrap import wrap
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.utils import make_grid

from vision_lab.core.text import display_text

MAX_DRAWN = 1000
"""Images on one sheet."""

THUMBNAIL_SIZE = 144
"""Pixels of a drawn picture's longer side: small ones are enlarged, large ones reduced."""

LARGE_THUMBNAIL_SIZE = 240
"""Likewise of one with boxes and their names."""

MIN_TILE_SIZE = 72
"""Pixels of a tile's longer side, at least."""

FONT_SIZE = 12
LINES = 2
"""Lines of a caption; longer ones are cut."""

GAP = 4
"""Pixels between pictures side by side."""

SHEET_WIDTH = 1200
"""Pixels of a row of pictures."""

COLOURS = {"plain": (32, 32, 32), "green": (0, 110, 40), "red": (180, 20, 30)}
WHITE = (255, 255, 255)


def _voc_colour(number: int) -> tuple[int, int, int]:
    """The colour of a class in Pascal VOC's masks: its bits in turn are the highest of red, green and blue."""
    parts = [0, 0, 0]
    for bit in range(8):
        parts[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
    return parts[0], parts[1], parts[2]


PALETTE = tuple(_voc_colour(number) for number in range(256))
"""The colour of each class, those of Pascal VOC's masks: the first is black."""


def draw_caption(
    image: Tensor, caption: str, *, colour: Literal["plain", "green", "red"] = "plain"
) -> Tensor:
    """A picture over its caption.

    Args:
        image: (C, H, W) float in [0, 1] or uint8; one channel, or the first three are shown.
        caption: set in at most two lines.
        colour: of the caption.

    Returns:
        (3, SIDE + caption, SIDE) uint8, the picture centred.
    """
    return side_by_side([image], caption, colour=colour)


def side_by_side(
    images: Sequence[Tensor],
    caption: str,
    *,
    colour: Literal["plain", "green", "red"] = "plain",
    side: int = THUMBNAIL_SIZE,
) -> Tensor:
    """Pictures of one size side by side over a caption.

    Args:
        images: n of (C, H, W), float in [0, 1] or uint8.
        caption: set in at most two lines.
        colour: of the caption.
        side: pixels of a drawn picture's longer side.

    Returns:
        (3, side + caption, n * side + gaps) uint8, each picture centred.
    """
    width = len(images) * (side + GAP) - GAP
    font = ImageFont.load_default(size=FONT_SIZE)
    line_height = FONT_SIZE + 3
    sheet = Image.new("RGB", (width, side + LINES * line_height + 4), WHITE)
    for place, image in enumerate(images):
        picture = _resize_to(image, side)
        left = place * (side + GAP) + (side - picture.width) // 2
        sheet.paste(picture, (left, (side - picture.height) // 2))
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(_wrap_caption(caption, width=width, font=font)):
        draw.text((2, side + 2 + number * line_height), line, fill=COLOURS[colour], font=font)
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)


def grid(pictures: Sequence[Tensor], *, columns: int | None = None, gap: int = 6) -> Tensor:
    """Pictures (3, h, w) uint8 of one size, row by row on white: (3, H, W) uint8; as many a row as fit a screen."""
    _, height, width = pictures[0].shape
    columns = min(columns or max(1, SHEET_WIDTH // (width + gap)), len(pictures))
    rows = ceil(len(pictures) / columns)
    sheet = torch.full(
        (3, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8
    )
    for place, picture in enumerate(pictures):
        top, left = gap + place // columns * (height + gap), gap + place % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = picture
    return sheet


def tiled(pictures: Tensor, *, columns: int) -> Tensor:
    """Pictures (N, C, H, W), floats in [0, 1] or uint8, edge to edge: (3, H', W') uint8; small ones are enlarged."""
    scale = max(1, MIN_TILE_SIZE // max(pictures.shape[-2:]))
    images = torch.stack([_rgb(picture).cpu() for picture in pictures])
    images = images.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)
    return make_grid(images, nrow=columns, padding=2, pad_value=255)


def colorize_mask(mask: Tensor) -> Tensor:
    """A mask (H, W) of classes in their colours, (3, H, W) uint8."""
    return torch.tensor(PALETTE, dtype=torch.uint8)[mask.cpu().int()].permute(2, 0, 1)


def overlay_mask(image: Tensor, mask: Tensor) -> Tensor:
    """A mask's colours laid over a picture, class 0 left clear.

    Args:
        image: (C, H, W) float in [0, 1] or uint8; it is fitted to the mask.
        mask: (h, w) classes.

    Returns:
        (3, h, w) uint8.
    """
    picture = (
        F.resize(_rgb(image).cpu().float(), list(mask.shape), antialias=True)
        .round()
        .to(torch.uint8)
    )
    half = ((picture.int() + colorize_mask(mask)) // 2).to(torch.uint8)
    return torch.where(mask.cpu() == 0, picture, half)


def draw_mask_errors(image: Tensor, said: Tensor, truth: Tensor) -> Tensor:
    """A picture in faint grey, red where the prediction is wrong and white where the truth does not count.

    Args:
        image: (C, H, W) float in [0, 1] or uint8.
        said: (H, W) classes.
        truth: likewise, 255 where it does not count.

    Returns:
        (3, H, W) uint8.
    """
    said, truth = said.cpu(), truth.cpu()
    faint = (F.rgb_to_grayscale(_rgb(image).cpu(), num_output_channels=3).int() // 3).to(
        torch.uint8
    )
    red = torch.tensor(COLOURS["red"], dtype=torch.uint8)[:, None, None]
    return torch.where(truth == 255, 255, torch.where(said != truth, red, faint)).to(torch.uint8)


def draw_boxes(
    image: Tensor, boxes: Tensor, labels: Tensor, texts: Sequence[str], *, side: int | None = None
) -> Tensor:
    """A picture with boxes in the colours of their classes, each with its text.

    Args:
        image: (C, H, W) float in [0, 1] or uint8; a small one is enlarged first, so that texts can be read.
        boxes: (n, 4) left, top, right, bottom in its pixels.
        labels: (n,) from 0.
        texts: n.
        side: pixels of the longer side; None: as large as it is, ``LARGE`` at least.

    Returns:
        (3, H, W) uint8.
    """
    picture = _rgb(image).cpu()
    longer = max(picture.shape[-2:])
    scale = side / longer if side else max(1.0, LARGE_THUMBNAIL_SIZE / longer)
    if scale != 1:
        size = [max(1, round(length * scale)) for length in picture.shape[-2:]]
        picture = F.resize(picture, size, antialias=True)
    sheet = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    draw = ImageDraw.Draw(sheet)
    thick = max(2, round(max(sheet.size) / 400))
    font = ImageFont.load_default(size=max(FONT_SIZE, round(max(sheet.size) / 50)))
    # The surest come first, and are drawn last.
    for box, label, text in reversed(
        list(zip((boxes.cpu() * scale).tolist(), labels.tolist(), texts, strict=True))
    ):
        colour = PALETTE[label % 255 + 1]
        left, top, right, bottom = box
        draw.rectangle(
            (left, top, max(right - 1, left), max(bottom - 1, top)), outline=colour, width=thick
        )
        text = label_text(text)
        _, _, width, height = draw.textbbox((0, 0), text, font=font)
        left, top = (
            min(left, sheet.width - width - 2),
            top - height - 2 if top > height + 2 else top,
        )
        draw.rectangle((left, top, left + width + 2, top + height + 2), fill=colour)
        bright = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2] > 110
        draw.text((left + 1, top), text, fill=COLOURS["plain"] if bright else WHITE, font=font)
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)


def with_legend(sheet: Tensor, names: Sequence[str]) -> Tensor:
    """A picture (3, H, W) uint8 over the names of the classes in their colours, as many as fit four lines."""
    font = ImageFont.load_default(size=FONT_SIZE)
    box, line = FONT_SIZE, FONT_SIZE + 8
    width = max(sheet.shape[-1], 4 * THUMBNAIL_SIZE)
    places, left, row = [], GAP, 0
    for number, name in enumerate(map(label_text, names)):
        length = box + 4 + int(font.getlength(name)) + 14
        if left + length > width and left > GAP:
            left, row = GAP, row + 1
        places.append((left, row, number, name))
        left += length
    places = [place for place in places if place[1] < 4]
    below = Image.new("RGB", (width, (places[-1][1] + 1) * line + GAP), WHITE)
    draw = ImageDraw.Draw(below)
    for left, row, number, name in places:
        draw.rectangle(
            (left, row * line, left + box, row * line + box),
            fill=PALETTE[number],
            outline=COLOURS["plain"],
        )
        draw.text((left + box + 4, row * line - 1), name, fill=COLOURS["plain"], font=font)
    legend = torch.from_numpy(np.array(below)).permute(2, 0, 1)
    wide = torch.full((3, sheet.shape[1], width), 255, dtype=torch.uint8)
    wide[..., : sheet.shape[-1]] = sheet
    return torch.cat([wide, legend], dim=1)


def palette_png(mask: Tensor, names: Sequence[str]) -> bytes:
    """A mask (H, W) uint8 as a PNG file whose values are the classes, with their colours and, as text, their names."""
    image = Image.fromarray(mask.numpy())
    image.putpalette([value for colour in PALETTE for value in colour])
    text = PngInfo()
    text.add_text("classes", json.dumps(list(names)))
    content = io.BytesIO()
    image.save(content, "PNG", pnginfo=text)
    return content.getvalue()


def _resize_to(image: Tensor, side: int) -> Image.Image:
    """A picture whose longer side has so many pixels."""
    picture = Image.fromarray(_rgb(image).permute(1, 2, 0).cpu().numpy())
    scale = side / max(picture.size)
    sampling = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BICUBIC
    return picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), sampling
    )


def _rgb(image: Tensor) -> Tensor:
    image = image.detach()
    image = (
        image
        if image.dtype == torch.uint8
        else F.to_dtype(image.clamp(0, 1), torch.uint8, scale=True)
    )
    return image[:1].expand(3, -1, -1) if image.shape[0] < 3 else image[:3]


def _wrap_caption(
    caption: str, *, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[str]:
    letters = max(8, int(width / (font.getlength("abcdefghij 0123456789") / 21)))
    lines = wrap(display_text(caption), letters, max_lines=LINES + 1) or [""]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], lines[LINES - 1][: letters - 3] + "..."]
    return lines


MAX_LABEL = 60
"""Letters of a name in a picture; of a longer one the rest is left out."""


def label_text(name: str) -> str:
    """The name of a class or file as it is drawn: on one line, without control characters, and not without end."""
    text = " ".join(display_text(name).split())
    return text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 3]}..."
