"""Drawing of images with captions, masks and boxes: pure functions of tensors."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torchvision.io import encode_png
from torchvision.transforms.v2 import functional as F
from torchvision.utils import make_grid

from vision_lab.core.files import write_file
from vision_lab.core.text import display_text

MAX_DRAWN = 1000
"""Maximum number of images on one sheet."""

THUMBNAIL_SIZE = 144
"""Longer side of a thumbnail in pixels."""

LARGE_THUMBNAIL_SIZE = 240
"""Longer side of a thumbnail with boxes in pixels."""

MIN_TILE_SIZE = 72
"""Minimum longer side of an image in ``tile_images``, in pixels."""

FONT_SIZE = 12
LINE_HEIGHT = FONT_SIZE + 3
CAPTION_LINES = 2
"""Number of lines of a caption; longer captions are truncated."""

LEGEND_LINES = 4
"""Maximum number of lines of a legend; further classes are left out."""

GAP = 4
"""Pixels between images drawn side by side."""

SHEET_WIDTH = 1200
"""Maximum width of a contact sheet in pixels, unless a single image is wider."""

MAX_LABEL_LENGTH = 60
"""Maximum length of a class or file name that is drawn."""

HEAT_COLORS = "turbo"
"""matplotlib's name of the colors of a heat map."""

HEAT_OPACITY = 0.5

CaptionColor = Literal["plain", "green", "red"]

COLORS = {
    "plain": (32, 32, 32),
    "green": (0, 110, 40),
    "red": (180, 20, 30),
}
WHITE = (255, 255, 255)


def _voc_color(label: int) -> tuple[int, int, int]:
    """Return the color of a label in Pascal VOC's masks: bits in turn of red, green and blue."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (label >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]


PALETTE = tuple(_voc_color(label) for label in range(256))
"""Color of each label, as in Pascal VOC's masks; label 0 is black."""


def draw_caption(
    image: Tensor,
    caption: str,
    *,
    color: CaptionColor = "plain",
) -> Tensor:
    """Draw an image with a caption.

    Args:
        image: (C, H, W) float in [0, 1] or uint8; of more than three channels the first three.
        caption: text of at most two lines.
        color: color of the text.

    Returns:
        (3, THUMBNAIL_SIZE + caption, THUMBNAIL_SIZE) uint8, with the image centered.
    """
    return side_by_side([image], caption, color=color)


def side_by_side(
    images: Sequence[Tensor],
    caption: str,
    *,
    color: CaptionColor = "plain",
    side: int = THUMBNAIL_SIZE,
) -> Tensor:
    """Draw images side by side with a caption.

    Args:
        images: n images (C, H, W), float in [0, 1] or uint8.
        caption: text of at most two lines.
        color: color of the text.
        side: longer side of each image in pixels.

    Returns:
        (3, side + caption, n * side + gaps) uint8, with each image centered.
    """
    width = len(images) * (side + GAP) - GAP
    height = side + CAPTION_LINES * LINE_HEIGHT + 4
    sheet = Image.new("RGB", (width, height), WHITE)
    for index, image in enumerate(images):
        resized = _resize_to(image, side)
        left = index * (side + GAP) + (side - resized.width) // 2
        sheet.paste(resized, (left, (side - resized.height) // 2))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=FONT_SIZE)
    for index, line in enumerate(_wrap_caption(caption, width=width, font=font)):
        draw.text((2, side + 2 + index * LINE_HEIGHT), line, fill=COLORS[color], font=font)
    return _to_tensor(sheet)


def grid(
    images: Sequence[Tensor],
    *,
    columns: int | None = None,
    gap: int = 6,
) -> Tensor:
    """Arrange drawn images in rows on white.

    Args:
        images: images (3, h, w) uint8 of the same size.
        columns: number of images in a row; None for as many as fit ``SHEET_WIDTH``.
        gap: pixels between images.

    Returns:
        (3, H, W) uint8.
    """
    width = images[0].shape[-1]
    columns = columns or max(1, SHEET_WIDTH // (width + gap))
    return make_grid(
        torch.stack(list(images)),
        nrow=columns,
        padding=gap,
        pad_value=255,
    )


def tile_images(images: Tensor, *, columns: int) -> Tensor:
    """Arrange images in rows, enlarging small ones by an integer factor.

    Args:
        images: (N, C, H, W) float in [0, 1] or uint8.
        columns: number of images in a row.

    Returns:
        (3, H', W') uint8.
    """
    scale = max(1, MIN_TILE_SIZE // max(images.shape[-2:]))
    tiles = torch.stack([to_rgb(image).cpu() for image in images])
    tiles = tiles.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)
    return make_grid(
        tiles,
        nrow=columns,
        padding=2,
        pad_value=255,
    )


def make_thumbnails(images: Sequence[Tensor], *, side: int, columns: int) -> Tensor:
    """Draw images on white squares without gaps, so that a program can cut them out.

    Args:
        images: n images (C, H, W), float in [0, 1] or uint8.
        side: side of each square in pixels.
        columns: number of squares in a row.

    Returns:
        (3, rows * side, columns * side) uint8.
    """
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * side, rows * side), WHITE)
    for index, image in enumerate(images):
        resized = _resize_to(image, side)
        left = index % columns * side + (side - resized.width) // 2
        top = index // columns * side + (side - resized.height) // 2
        sheet.paste(resized, (left, top))
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)


def overlay_heat_map(image: Tensor, heat: Tensor) -> Tensor:
    """Draw a heat map over an image in shades of gray, from blue (0) to red (1).

    Args:
        image: (C, H, W) float in [0, 1] or uint8.
        heat: (H, W) float in [0, 1].

    Returns:
        (3, H, W) uint8.
    """
    from matplotlib import colormaps

    gray = F.rgb_to_grayscale(to_rgb(image).cpu(), num_output_channels=3).float()
    colored = colormaps[HEAT_COLORS](heat.cpu().numpy())[..., :3]
    colors = torch.from_numpy(colored).permute(2, 0, 1).float() * 255
    return (HEAT_OPACITY * colors + (1 - HEAT_OPACITY) * gray).round().to(torch.uint8)


def colorize_mask(mask: Tensor) -> Tensor:
    """Convert a mask (H, W) of labels to colors, (3, H, W) uint8."""
    return torch.tensor(PALETTE, dtype=torch.uint8)[mask.cpu().int()].permute(2, 0, 1)


def overlay_mask(image: Tensor, mask: Tensor) -> Tensor:
    """Blend the colors of a mask with an image, except where the label is 0.

    Args:
        image: (C, H, W) float in [0, 1] or uint8; it is resized to the mask.
        mask: (h, w) labels.

    Returns:
        (3, h, w) uint8.
    """
    resized = F.resize(to_rgb(image).cpu().float(), list(mask.shape), antialias=True)
    background = resized.round().to(torch.uint8)
    blended = ((background.int() + colorize_mask(mask)) // 2).to(torch.uint8)
    return torch.where(mask.cpu() == 0, background, blended)


def draw_mask_errors(
    image: Tensor,
    prediction: Tensor,
    target: Tensor,
) -> Tensor:
    """Draw a dark grayscale image with errors in red and ignored pixels in white.

    Args:
        image: (C, H, W) float in [0, 1] or uint8.
        prediction: (H, W) labels.
        target: (H, W) labels, 255 for ignored pixels.

    Returns:
        (3, H, W) uint8.
    """
    prediction, target = prediction.cpu(), target.cpu()
    gray = F.rgb_to_grayscale(to_rgb(image).cpu(), num_output_channels=3)
    dark = (gray.int() // 3).to(torch.uint8)
    red = torch.tensor(COLORS["red"], dtype=torch.uint8)[:, None, None]
    with_errors = torch.where(prediction != target, red, dark)
    return torch.where(target == 255, 255, with_errors).to(torch.uint8)


Rectangle = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in pixels."""


def draw_boxes(
    image: Tensor, boxes: Tensor, labels: Tensor, texts: Sequence[str], *, side: int | None = None
) -> Tensor:
    """Draw boxes with texts, in the colors of their labels.

    ``torchvision.utils.draw_bounding_boxes`` draws texts without background, which are unreadable
    on many images.

    Texts that would cover others are left out, but for the first one of each label.

    Args:
        image: (C, H, W) float in [0, 1] or uint8.
        boxes: (n, 4), (x1, y1, x2, y2) in pixels of the image, the most important first.
        labels: (n,) labels.
        texts: n texts.
        side: longer side of the result in pixels; None for that of the image, but at least
            ``LARGE_THUMBNAIL_SIZE``.

    Returns:
        (3, H, W) uint8.
    """
    pixels = to_rgb(image).cpu()
    longer_side = max(pixels.shape[-2:])
    scale = side / longer_side if side else max(1.0, LARGE_THUMBNAIL_SIZE / longer_side)
    if scale != 1:
        size = [max(1, round(length * scale)) for length in pixels.shape[-2:]]
        pixels = F.resize(pixels, size, antialias=True)
    sheet = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    rows = list(zip((boxes.cpu() * scale).tolist(), labels.tolist(), texts, strict=True))
    for box, label, _ in reversed(rows):  # highest scores come first and are drawn on top
        _draw_outline(sheet, box, color=_box_color(label))
    placed: list[Rectangle] = []
    labeled: set[int] = set()
    for box, label, text in rows:
        rectangle = _draw_box_text(
            sheet,
            box,
            label_text(text),
            placed,
            color=_box_color(label),
            needed=label not in labeled,
        )
        if rectangle:
            placed.append(rectangle)
            labeled.add(label)
    return _to_tensor(sheet)


def _box_color(label: int) -> tuple[int, int, int]:
    return PALETTE[label % 255 + 1]


def _draw_outline(sheet: Image.Image, box: Sequence[float], *, color: tuple[int, int, int]) -> None:
    left, top, right, bottom = box
    outline = (left, top, max(right - 1, left), max(bottom - 1, top))
    line_width = max(2, round(max(sheet.size) / 400))
    ImageDraw.Draw(sheet).rectangle(outline, outline=color, width=line_width)


def _draw_box_text(
    sheet: Image.Image,
    box: Sequence[float],
    text: str,
    placed: Sequence[Rectangle],
    *,
    color: tuple[int, int, int],
    needed: bool,
) -> Rectangle | None:
    """Draw the text of a box where it covers no other text.

    Args:
        sheet: the image.
        box: (x1, y1, x2, y2) in pixels.
        text: the text.
        placed: rectangles of the texts that are already drawn.
        color: color of the box.
        needed: whether to draw it in any case: it is the first one of its class.

    Returns:
        The rectangle of the text; None if there is no room.
    """
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=max(FONT_SIZE, round(max(sheet.size) / 50)))
    _, _, width, height = draw.textbbox((0, 0), text, font=font)
    left = min(box[0], sheet.width - width - 2)
    tops = [box[1] - height - 2, box[1], box[3]]  # above the box, in it, below it
    rectangles = []
    for top in tops:
        if 0 <= top <= sheet.height - height - 2:
            rectangles.append((left, top, left + width + 2, top + height + 2))
    free = [each for each in rectangles if not any(_overlap(each, other) for other in placed)]
    if not free and not needed:
        return None
    rectangle = (free or rectangles or [(left, 0.0, left + width + 2, height + 2.0)])[0]
    draw.rectangle(rectangle, fill=color)
    is_bright = 0.3 * color[0] + 0.6 * color[1] + 0.1 * color[2] > 110
    position = (rectangle[0] + 1, rectangle[1])
    draw.text(position, text, fill=COLORS["plain"] if is_bright else WHITE, font=font)
    return rectangle


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    is_beside = one[2] <= other[0] or other[2] <= one[0]
    return not (is_beside or one[3] <= other[1] or other[3] <= one[1])


def with_legend(
    sheet: Tensor,
    class_names: Sequence[str],
    *,
    first_color: int = 0,
) -> Tensor:
    """Add the class names in their colors below an image, as many as fit ``LEGEND_LINES``.

    Args:
        sheet: (3, H, W) uint8.
        class_names: the class names.
        first_color: index of the color of the first class: 0 for masks, 1 for boxes.

    Returns:
        (3, H + legend, W') uint8.
    """
    font = ImageFont.load_default(size=FONT_SIZE)
    box_size, line_height = FONT_SIZE, FONT_SIZE + 8
    width = max(sheet.shape[-1], 2 * THUMBNAIL_SIZE)
    entries, left, line = [], GAP, 0
    for label, name in enumerate(map(label_text, class_names)):
        length = box_size + 4 + int(font.getlength(name)) + 14
        if left + length > width and left > GAP:
            left, line = GAP, line + 1
        if line == LEGEND_LINES:
            break
        entries.append((left, line, label, name))
        left += length
    legend = Image.new("RGB", (width, (entries[-1][1] + 1) * line_height + GAP), WHITE)
    draw = ImageDraw.Draw(legend)
    plain = COLORS["plain"]
    for left, line, label, name in entries:
        top = line * line_height
        box = (left, top, left + box_size, top + box_size)
        draw.rectangle(box, fill=PALETTE[(label + first_color) % 256], outline=plain)
        draw.text((left + box_size + 4, top - 1), name, fill=plain, font=font)
    padded = torch.full((3, sheet.shape[1], width), 255, dtype=torch.uint8)
    padded[..., : sheet.shape[-1]] = sheet
    return torch.cat([padded, _to_tensor(legend)], dim=1)


def write_png(
    folder: Path,
    name: str,
    image: Tensor,
) -> None:
    """Write an image to a PNG file atomically.

    Args:
        folder: an existing folder.
        name: path of the file relative to ``folder``.
        image: (1, H, W) or (3, H, W) uint8.
    """
    write_file(folder, name, encode_png(image).numpy().tobytes())


def encode_palette_png(mask: Tensor, class_names: Sequence[str]) -> bytes:
    """Encode a mask as a PNG file with a palette, so that its values stay the labels.

    Args:
        mask: (H, W) uint8 labels.
        class_names: the class names, stored as text in the file.
    """
    image = Image.fromarray(mask.numpy())
    image.putpalette([value for color in PALETTE for value in color])
    text = PngInfo()
    text.add_text("classes", json.dumps(list(class_names)))
    content = io.BytesIO()
    image.save(content, "PNG", pnginfo=text)
    return content.getvalue()


def label_text(name: str) -> str:
    """Return a class or file name as a single printable line, truncated to be drawn."""
    text = " ".join(display_text(name).split())
    if len(text) <= MAX_LABEL_LENGTH:
        return text
    return f"{text[: MAX_LABEL_LENGTH - 3]}..."


def _resize_to(image: Tensor, side: int) -> Image.Image:
    """Resize an image to a longer side; pixels stay visible if it is enlarged much."""
    resized = Image.fromarray(to_rgb(image).permute(1, 2, 0).cpu().numpy())
    scale = side / max(resized.size)
    size = (max(1, round(resized.width * scale)), max(1, round(resized.height * scale)))
    is_pixel_art = scale >= 2
    return resized.resize(
        size, Image.Resampling.NEAREST if is_pixel_art else Image.Resampling.BICUBIC
    )


def to_rgb(image: Tensor) -> Tensor:
    """Convert an image to three channels of 8 bits.

    Args:
        image: (C, H, W) float in [0, 1] or uint8; of more than three channels the first three.

    Returns:
        (3, H, W) uint8.
    """
    image = image.detach()
    if image.dtype != torch.uint8:
        image = F.to_dtype(image.clamp(0, 1), torch.uint8, scale=True)
    if image.shape[0] < 3:
        return image[:1].expand(3, -1, -1)
    return image[:3]


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _wrap_caption(
    caption: str, *, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[str]:
    mean_letter_width = font.getlength("abcdefghij 0123456789") / 21
    letters = max(8, int(width / mean_letter_width))
    lines = wrap(display_text(caption), letters, max_lines=CAPTION_LINES + 1) or [""]
    if len(lines) > CAPTION_LINES:
        last = lines[CAPTION_LINES - 1][: letters - 3] + "..."
        lines = [*lines[: CAPTION_LINES - 1], last]
    return lines
