"""Charts as images: bars, curves and confusion matrices."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from vision_lab.viz.images import PALETTE, label_text


def _plot_text(name: str) -> str:
    """A name for matplotlib, which would read what lies between dollar signs as a formula."""
    return label_text(name).replace("$", r"\$")


def bars(values: Mapping[str, float], label: str) -> Tensor:
    """Numbers in [0, 1] by name as bars, (3, H, W) uint8."""
    figure = Figure(figsize=(6, 1.0 + 0.28 * max(len(values), 3)), dpi=100, layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh(range(len(values)), list(values.values()), color="#4878a8")
    axes.set_yticks(range(len(values)), [_plot_text(name) for name in values])
    axes.bar_label(drawn, fmt="%.2f", padding=3, fontsize=8)
    axes.set(xlim=(0, 1.08), xlabel=label)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return figure_to_image(figure)


def curves(values: Mapping[str, Sequence[float]], *, x: str, y: str) -> Tensor:
    """Lines over [0, 1] by name, evenly spaced, as a picture (3, H, W) uint8; of many the names are left out."""
    figure = Figure(figsize=(6, 4.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    for place, (name, line) in enumerate(values.items()):
        colour = [part / 255 for part in PALETTE[place % 255 + 1]]
        axes.plot(
            np.linspace(0, 1, len(line)), line, label=_plot_text(name), color=colour, linewidth=1.5
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    if 0 < len(values) <= 20:
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure_to_image(figure)


def confusion(
    matrix: Tensor, names: Sequence[str], *, unit: Literal["samples", "pixels"] = "samples"
) -> Tensor:
    """A confusion matrix as a picture, each row's shares as shades.

    Args:
        matrix: (K, K) counts, truth by prediction.
        names: K class names; above 30 they are left out, and above 20 the counts.
        unit: what is counted: of pixels, which are many, each row's percentages are written instead of counts.

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
    right, total = int(np.trace(counts)), int(counts.sum())
    title = (
        f"{right} of {total} right"
        if unit == "samples"
        else f"{right / max(total, 1):.1%} of pixels right"
    )
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if classes <= 30:
        shown = [_plot_text(name) for name in names]
        axes.set_xticks(range(classes), shown, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(classes), shown)
    if classes <= 20:
        for row, column in np.argwhere(counts > 0):
            shade = "white" if shares[row, column] > 0.5 else "black"
            written = (
                str(counts[row, column])
                if unit == "samples"
                else f"{100 * shares[row, column]:.0f}"
            )
            axes.text(column, row, written, ha="center", va="center", color=shade, fontsize=8)
    return figure_to_image(figure)


def figure_to_image(figure: Figure) -> Tensor:
    """A matplotlib figure as a picture, (3, H, W) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)
