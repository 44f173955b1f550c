"""The plot of a comparison as a PNG file, for a README: every run, means, and costs."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vision_lab.compare.charts import COLORS, find_front
from vision_lab.compare.comparison import ComparedGroup, Comparison
from vision_lab.compare.tables import average_costs
from vision_lab.core.text import display_text, shorten_middle

MAX_GROUPS = 20
"""Maximum number of groups, the best ones."""

MAX_NAME = 40
"""Maximum number of characters of the name of a group."""

LOG_RATIO = 10
"""Ratio of the largest to the smallest cost from which its axis is logarithmic."""


def draw_plot(comparison: Comparison) -> bytes:
    """Draw the metric of each run and the mean of each group, and the means against seconds.

    Args:
        comparison: the comparison.

    Returns:
        The content of a PNG file.
    """
    items = [item for item in comparison.groups if item.summary.size][:MAX_GROUPS]
    points = []
    for item in items:
        seconds = average_costs(item).get("seconds")
        if seconds is not None:
            points.append((seconds, item))
    has_costs = len(points) > 1
    figure = Figure(
        figsize=(11 if has_costs else 6, 1.6 + 0.42 * max(len(items), 4)),
        dpi=110,
        layout="constrained",
    )
    panels = figure.subplots(1, 2) if has_costs else [figure.subplots()]
    _draw_runs(panels[0], items, comparison.metric)
    if has_costs:
        _draw_costs(panels[1], points, comparison)
    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()


def _name(item: ComparedGroup) -> str:
    """Return the name of a group, without what matplotlib would interpret as a formula."""
    name = " ".join(display_text(item.group.short_name).split())
    return shorten_middle(name, MAX_NAME).replace("$", r"\$")


def _draw_runs(axes: Axes, items: Sequence[ComparedGroup], metric: str) -> None:
    for row, item in enumerate(items):
        values = list(item.group.values(metric).values())
        color = COLORS[row % len(COLORS)]
        if item.summary.low is not None and item.summary.high is not None:
            axes.plot(
                [item.summary.low, item.summary.high],
                [row, row],
                color=color,
                linewidth=6,
                alpha=0.2,
                solid_capstyle="butt",
            )
        axes.plot(values, [row] * len(values), "o", color=color, markersize=5, alpha=0.7)
        axes.plot([item.summary.mean], [row], "|", color=color, markersize=18, markeredgewidth=2)
    axes.set_yticks(range(len(items)), [_name(item) for item in items])
    axes.set_ylim(len(items) - 0.5, -0.5)  # the best one on top
    axes.set_xlabel(f"{metric.replace('$', '')}: runs, mean, 95 % interval")
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_costs(
    axes: Axes, points: Sequence[tuple[float, ComparedGroup]], comparison: Comparison
) -> None:
    front = find_front(points, comparison.direction)
    axes.plot(
        [seconds for seconds, _ in front],
        [item.summary.mean for _, item in front],
        ":",
        color="#999999",
    )
    ranks = {item.group.name: rank for rank, item in enumerate(comparison.groups)}
    for seconds, item in points:
        color = COLORS[ranks[item.group.name] % len(COLORS)]
        axes.plot([seconds], [item.summary.mean], "o", color=color)
        axes.annotate(
            _name(item),
            (seconds, item.summary.mean),
            textcoords="offset points",
            xytext=(0, 7),
            ha="center",
            fontsize=8,
        )
    costs = [seconds for seconds, _ in points]
    if min(costs) > 0 and max(costs) > LOG_RATIO * min(costs):
        axes.set_xscale("log")
    axes.margins(0.18)
    axes.set(xlabel="seconds of training (dotted: Pareto front)")
    axes.grid(color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
