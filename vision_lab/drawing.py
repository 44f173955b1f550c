"""Tensors to pictures: pure functions, no files, no task."""

from collections.abc import Sequence
from math import ceil
from textwrap import wrap
from typing import Literal

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import functional as F

SIDE = 144
"""Pixels of a drawn picture's longer side: small ones are enlarged, large ones reduced."""

FONT_SIZE = 12
LINES = 2
"""Lines of a caption; longer ones are cut."""

COLOURS = {"plain": (32, 32, 32), "green": (0, 110, 40), "red": (180, 20, 30)}
PAPER = (255, 255, 255)


def captioned(image: Tensor, caption: str, *, colour: Literal["plain", "green", "red"] = "plain") -> Tensor:
    """A picture over its caption.

    Args:
        image: (C, H, W) float in [0, 1] or uint8; one channel, or the first three are shown.
        caption: set in at most two lines.
        colour: of the caption.

    Returns:
        (3, SIDE + caption, SIDE) uint8, the picture centred.
    """
    picture = Image.fromarray(_rgb(image).permute(1, 2, 0).cpu().numpy())
    scale = SIDE / max(picture.size)
    sampling = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BICUBIC
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), sampling)
    font = ImageFont.load_default(size=FONT_SIZE)
    line_height = FONT_SIZE + 3
    sheet = Image.new("RGB", (SIDE, SIDE + LINES * line_height + 4), PAPER)
    sheet.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(_lines(caption, width=SIDE, font=font)):
        draw.text((2, SIDE + 2 + number * line_height), line, fill=COLOURS[colour], font=font)
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)


def grid(pictures: Sequence[Tensor], *, columns: int = 8, gap: int = 6) -> Tensor:
    """Pictures (3, h, w) uint8 of one size, row by row on white: (3, H, W) uint8."""
    columns = min(columns, len(pictures))
    _, height, width = pictures[0].shape
    rows = ceil(len(pictures) / columns)
    sheet = torch.full((3, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8)
    for place, picture in enumerate(pictures):
        top, left = gap + place // columns * (height + gap), gap + place % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = picture
    return sheet


def confusion(matrix: Tensor, names: Sequence[str]) -> Tensor:
    """A confusion matrix as a picture, each row's shares as shades.

    Args:
        matrix: (K, K) counts, truth by prediction.
        names: K class names; above 30 they are left out, and above 20 the counts.

    Returns:
        (3, H, W) uint8.
    """
    counts = matrix.cpu().numpy()
    classes = len(names)
    side = min(4.0 + 0.42 * classes, 14.0)
    figure = Figure(figsize=(side, side), dpi=100, layout="compressed")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=f"{int(np.trace(counts))} of {int(counts.sum())} right")
    if classes <= 30:
        axes.set_xticks(range(classes), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(classes), names)
    if classes <= 20:
        for row, column in np.argwhere(counts > 0):
            shade = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade, fontsize=8)
    return rendered(figure)


def rendered(figure: Figure) -> Tensor:
    """A matplotlib figure as a picture, (3, H, W) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _rgb(image: Tensor) -> Tensor:
    image = image.detach()
    image = image if image.dtype == torch.uint8 else F.to_dtype(image.clamp(0, 1), torch.uint8, scale=True)
    return image.expand(3, -1, -1) if image.shape[0] == 1 else image[:3] if image.shape[0] > 3 else image


def _lines(caption: str, *, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    letters = max(8, int(width / (font.getlength("abcdefghij 0123456789") / 21)))
    lines = wrap(caption, letters) or [""]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], lines[LINES - 1][: letters - 3] + "..."]
    return lines
