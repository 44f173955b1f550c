"""Charts of a comparison, drawn by Plotly. Names come from run folders, so they are escaped."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.colors import qualitative, sample_colorscale

from vision_lab.compare.comparison import ComparedGroup, Comparison
from vision_lab.compare.curves import read_curves
from vision_lab.compare.tables import average_costs
from vision_lab.core.text import display_text

COLORS = qualitative.D3
BAND_OPACITY = 0.15

MAX_GROUPS = 10
"""Number of groups that charts with a color for each group show, the best ones."""

MAX_CLASSES = 40
"""Number of classes in the chart of classes, those with the largest differences."""

COST_TITLES = {
    "seconds": "seconds of training",
    "parameters": "parameters",
    "flops": "FLOPs of a forward pass of one image",
}

LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
    "height": 420,
    "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0},
}

MAX_EPOCH_TICKS = 20
"""Number of epochs up to which each one has a tick."""

LABEL_MARGIN = 0.2
"""Margin beside the points of a chart, as a fraction of their range."""

LEGEND_ROW_HEIGHT = 20
"""Pixels that a chart is higher for each group in its legend."""


def make_charts(comparison: Comparison) -> dict[str, go.Figure]:
    """Draw the charts for which there is data.

    Args:
        comparison: the comparison.

    Returns:
        The charts by heading.
    """
    charts: dict[str, go.Figure] = {}
    charts |= _make_curves(comparison)
    for cost, title in COST_TITLES.items():
        chart = _make_cost_chart(comparison, cost, title)
        if chart is not None:
            charts[f"{comparison.metric} against {title}"] = chart
    classes = _make_class_chart(comparison)
    if classes is not None:
        charts[f"Classes: difference from {comparison.reference.name}"] = classes
    parallel = _make_parallel_chart(comparison)
    if parallel is not None:
        charts["Settings of all groups, the best ones in yellow"] = parallel
    return charts


def _escape(text: str) -> str:
    """Escape a text: Plotly interprets some HTML."""
    return display_text(text, "html")


def _label(item: ComparedGroup) -> str:
    return _escape(item.group.short_name)


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def _make_curves(comparison: Comparison) -> dict[str, go.Figure]:
    """Draw a chart for each metric of validation and training, with a band of one deviation."""
    names = [comparison.metric] if "/" in comparison.metric else []
    names += [run.monitor for item in comparison.groups for run in item.group.runs]
    names = list(dict.fromkeys([*names, "val/loss", "train/loss"]))
    charts: dict[str, go.Figure] = {}
    height = _find_height(comparison)
    for index, item in enumerate(comparison.groups[:MAX_GROUPS]):
        for name, curve in read_curves(item.group, names).items():
            heading = f"{name} by epoch"
            if heading not in charts:
                charts[heading] = go.Figure(layout={**LAYOUT, "height": height})
                charts[heading].update_xaxes(title="epoch")
                charts[heading].update_yaxes(title=_escape(name))
            if curve.epochs[-1] <= MAX_EPOCH_TICKS:
                charts[heading].update_xaxes(dtick=1)  # no half epochs
            lines = {"line": {"color": _color(index)}, "legendgroup": str(index)}
            charts[heading].add_scatter(
                x=curve.epochs, y=curve.means, name=_label(item), mode="lines+markers", **lines
            )
            pairs = list(zip(curve.means, curve.deviations, strict=True))
            upper = [mean + deviation for mean, deviation in pairs]
            lower = [mean - deviation for mean, deviation in pairs]
            charts[heading].add_scatter(
                x=[*curve.epochs, *reversed(curve.epochs)],
                y=[*upper, *reversed(lower)],
                fill="toself",
                fillcolor=_make_transparent(_color(index)),
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                showlegend=False,
                legendgroup=str(index),
            )
    return charts


def _find_height(comparison: Comparison) -> int:
    """Return the height of a chart whose legend has the groups."""
    groups = min(len(comparison.groups), MAX_GROUPS)
    return int(LAYOUT["height"]) + LEGEND_ROW_HEIGHT * groups


def _make_transparent(color: str) -> str:
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{BAND_OPACITY})"


def _make_cost_chart(comparison: Comparison, cost: str, title: str) -> go.Figure | None:
    """Draw the metric against a cost, with a line through the groups that no other one beats."""
    points = []
    for item in comparison.groups:
        costs = average_costs(item)
        if cost in costs and item.summary.size:
            points.append((costs[cost], item))
    if len({value for value, _ in points}) < 2:
        return None
    figure = go.Figure(layout=LAYOUT)
    front = find_front(points, comparison.direction)
    figure.add_scatter(
        x=[value for value, _ in front],
        y=[item.summary.mean for _, item in front],
        mode="lines",
        name="Pareto front",
        line={"color": "#999999", "dash": "dot"},
        hoverinfo="skip",
    )
    deviations = [item.summary.deviation or 0.0 for _, item in points]
    figure.add_scatter(
        x=[value for value, _ in points],
        y=[item.summary.mean for _, item in points],
        error_y={"array": deviations, "color": "#bbbbbb"},
        mode="markers+text",
        text=[_label(item) for _, item in points] if len(points) <= MAX_GROUPS else None,
        textposition="top center",
        hovertext=[_label(item) for _, item in points],
        name="mean and standard deviation",
        marker={"size": 9, "color": COLORS[0]},
        cliponaxis=False,
    )
    largest, smallest = max(value for value, _ in points), min(value for value, _ in points)
    if smallest > 0 and largest > 10 * smallest:
        low, high = math.log10(smallest), math.log10(largest)
        figure.update_xaxes(type="log")
    else:
        low, high = smallest, largest
    margin = LABEL_MARGIN * (high - low)  # names are centered at their points
    figure.update_xaxes(range=[low - margin, high + margin])
    figure.update_xaxes(title=title)
    figure.update_yaxes(title=_escape(comparison.metric))
    return figure


def find_front(
    points: Sequence[tuple[float, ComparedGroup]], direction: str
) -> list[tuple[float, ComparedGroup]]:
    """Return the groups that are better than all cheaper ones, from the cheapest.

    Args:
        points: groups with their costs.
        direction: whether the best value of the metric is the largest ("max") or the smallest.
    """
    sign = 1 if direction == "max" else -1
    front: list[tuple[float, ComparedGroup]] = []
    for value, item in sorted(points, key=lambda point: (point[0], -sign * point[1].summary.mean)):
        if not front or sign * item.summary.mean > sign * front[-1][1].summary.mean:
            front.append((value, item))
    return front


def _average_classes(item: ComparedGroup) -> dict[str, float]:
    """Return the mean of the first metric of each class over the runs of a group."""
    values: dict[str, list[float]] = {}
    for run in item.group.runs:
        for name, metrics in run.per_class.items():
            if metrics:
                values.setdefault(name, []).append(next(iter(metrics.values())))
    return {name: statistics.fmean(found) for name, found in values.items()}


def _make_class_chart(comparison: Comparison) -> go.Figure | None:
    """Draw the difference of each class from the reference, the largest differences first."""
    means = [_average_classes(item) for item in comparison.groups[:MAX_GROUPS]]
    items = comparison.groups[:MAX_GROUPS]
    reference = next(
        (mean for mean, item in zip(means, items, strict=True) if item.difference is None), {}
    )
    names = [name for name in reference if all(name in mean for mean in means)]
    if len(items) < 2 or not names:
        return None
    names.sort(key=lambda name: -max(abs(mean[name] - reference[name]) for mean in means))
    names = names[:MAX_CLASSES]
    figure = go.Figure(layout={**LAYOUT, "height": _find_height(comparison)})
    for index, (item, mean) in enumerate(zip(items, means, strict=True)):
        if item.difference is not None:
            figure.add_bar(
                x=[_escape(name) for name in names],
                y=[mean[name] - reference[name] for name in names],
                name=_label(item),
                marker={"color": _color(index)},
            )
    figure.update_yaxes(title="difference")
    return figure


def _make_parallel_chart(comparison: Comparison) -> go.Figure | None:
    """Draw each group as a line through its settings, colored by the metric.

    Plotly's own parallel coordinates require WebGL, which some browsers do not have.
    """
    keys = list(comparison.groups[0].group.settings)
    items = [item for item in comparison.groups if item.summary.size]
    if len(keys) < 2 or len(items) < 3:
        return None
    axes = {key: _make_axis([item.group.settings[key] for item in items]) for key in keys}
    axes[comparison.metric] = _make_axis([str(item.summary.mean) for item in items])
    names = [_escape(key.rpartition(".")[2]) for key in axes]
    figure = go.Figure(layout=LAYOUT)
    ranks = [position for position, _ in axes[comparison.metric]]
    if comparison.direction == "min":
        ranks = [1 - rank for rank in ranks]
    for index in reversed(range(len(items))):  # the best ones above the others
        points = [axis[index] for axis in axes.values()]
        figure.add_scatter(
            x=names,
            y=[position for position, _ in points],
            text=[_escape(text) for _, text in points],
            hovertemplate="%{x} %{text}<extra></extra>",
            mode="lines+markers",
            line={"color": sample_colorscale("Viridis", ranks[index])[0]},
            showlegend=False,
        )
    for name, axis in zip(names, axes.values(), strict=True):
        for position, text in dict(axis).items() if len(set(axis)) <= MAX_GROUPS else _ends(axis):
            figure.add_annotation(
                x=name,
                y=position,
                text=_escape(text),
                xanchor="left",
                xshift=6,
                showarrow=False,
            )
    figure.update_yaxes(visible=False)
    figure.update_xaxes(showgrid=True, range=[-0.2, len(names) - 0.5])
    return figure


def _make_axis(values: Sequence[str]) -> list[tuple[float, str]]:
    """Return the position of each value from 0 to 1, and its text: numbers are scaled."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        options = list(dict.fromkeys(values))
        last = max(1, len(options) - 1)
        return [(options.index(value) / last, value) for value in values]
    if min(numbers) > 0 and max(numbers) > 10 * min(numbers):
        scaled = [math.log(number) for number in numbers]
    else:
        scaled = numbers
    low, high = min(scaled), max(scaled)
    positions = [(number - low) / (high - low or 1) for number in scaled]
    return list(zip(positions, [f"{number:.4g}" for number in numbers], strict=True))


def _ends(axis: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    return [min(axis), max(axis)]
