"""Charts as images: bars, curves and confusion matrices.

matplotlib is imported when the first one is drawn, which takes half a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from vision_lab.viz.images import PALETTE, label_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_LEGEND_ENTRIES = 20
MAX_NAMED_CLASSES = 30
"""Maximum number of classes whose names fit a confusion matrix."""

MAX_COUNTED_CLASSES = 20
"""Maximum number of classes whose counts fit a confusion matrix."""


Unit = Literal["samples", "boxes", "pixels"]
"""What a confusion matrix counts."""


def bar_chart(values: Mapping[str, float], label: str) -> Tensor:
    """Draw a horizontal bar for each value.

    Args:
        values: values in [0, 1] by name.
        label: label of the axis.

    Returns:
        (3, H, W) uint8.
    """
    figure = _make_figure((6, 1.0 + 0.28 * max(len(values), 3)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(values)), list(values.values()), color="#4878a8")
    axes.set_yticks(range(len(values)), [_escape_math(name) for name in values])
    axes.bar_label(
        bars,
        fmt="%.2f",
        padding=3,
        fontsize=8,
    )
    axes.set(xlim=(0, 1.08), xlabel=label)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return figure_to_image(figure)


def line_chart(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
) -> Tensor:
    """Draw curves over [0, 1].

    Args:
        curves: x and y coordinates in [0, 1] by name.
        x: label of the x axis.
        y: label of the y axis.

    Returns:
        (3, H, W) uint8; without a legend if there are more than ``MAX_LEGEND_ENTRIES`` curves.
    """
    figure = _make_figure((6, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, (name, coordinates) in enumerate(curves.items()):
        color = [channel / 255 for channel in PALETTE[index % 255 + 1]]
        axes.plot(*coordinates, label=_escape_math(name), color=color, linewidth=1.5)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1.02),
        xlabel=x,
        ylabel=y,
    )
    axes.spines[["top", "right"]].set_visible(False)
    if 0 < len(curves) <= MAX_LEGEND_ENTRIES:
        figure.legend(
            loc="outside right upper",
            frameon=False,
            fontsize=8,
        )
    return figure_to_image(figure)


def confusion_matrix(
    matrix: Tensor, class_names: Sequence[str], *, unit: Unit = "samples"
) -> Tensor:
    """Draw a confusion matrix, shaded by the fraction of each row.

    Args:
        matrix: (K, K) counts of target by prediction.
        class_names: K class names, left out if there are more than ``MAX_NAMED_CLASSES``.
        unit: what is counted. For pixels, percentages of each row are written instead of counts.

    Returns:
        (3, H, W) uint8.
    """
    counts = matrix.cpu().numpy()
    num_classes = len(class_names)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    correct, total = int(np.trace(counts)), int(counts.sum())
    if unit != "pixels":
        title = f"{correct} of {total} {unit} correct"
        texts = counts.astype(str).tolist()
    else:
        title = f"{correct / max(total, 1):.1%} of pixels correct"
        texts = [[f"{100 * fraction:.0f}" for fraction in row] for row in fractions]
    side = min(4.0 + 0.42 * num_classes, 14.0)
    figure = _make_figure((side, side), layout="compressed")
    axes = figure.subplots()
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="target", title=title)
    if num_classes <= MAX_NAMED_CLASSES:
        names = [_escape_math(name) for name in class_names]
        ticks = range(num_classes)
        axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(ticks, names)
    if num_classes <= MAX_COUNTED_CLASSES:
        for row, column in np.argwhere(counts > 0):
            color = "white" if fractions[row, column] > 0.5 else "black"
            axes.text(
                column, row, texts[row][column], ha="center", va="center", color=color, fontsize=8
            )
    return figure_to_image(figure)


def _make_figure(
    size: tuple[float, float], *, layout: Literal["constrained", "compressed"]
) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=size, dpi=100, layout=layout)


def figure_to_image(figure: Figure) -> Tensor:
    """Render a matplotlib figure, (3, H, W) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _escape_math(name: str) -> str:
    """Escape dollar signs, between which matplotlib reads a formula."""
    return label_text(name).replace("$", r"\$")
