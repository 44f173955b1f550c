"""Charts of a search: history, parallel coordinates, importance of options. Without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from vision_lab.core.files import replace_file
from vision_lab.search.results import find_importances, shorten_keys, trial_values
from vision_lab.search.study import SearchStudy

IMAGES_FOLDER = "images"

COLORS = "viridis"


def write_charts(study: SearchStudy) -> None:
    """Write the charts of a search to its folder.

    Args:
        study: the study, with one metric; there are no charts of two.
    """
    trials = [trial for trial in study.trials if trial_values(trial)]
    if len(study.settings.metrics) > 1 or len(trials) < 2:
        return
    figures = {"history": _draw_history(study, trials), "parallel": _draw_parallel(study, trials)}
    importances = find_importances(study)
    if len(importances) > 1:
        figures["importance"] = _draw_importances(study, importances)
    for name, figure in figures.items():
        FigureCanvasAgg(figure)
        save = partial(figure.savefig, format="png")
        replace_file(study.folder, f"{IMAGES_FOLDER}/{name}.png", save)


def _draw_history(study: SearchStudy, trials: Sequence[FrozenTrial]) -> Figure:
    """Draw the metric of each trial, and the best one so far."""
    figure, axes = _new_figure(7, 4)
    for state, marker, label in (
        (TrialState.COMPLETE, "o", "finished"),
        (TrialState.PRUNED, "x", "ended early"),
    ):
        chosen = [trial for trial in trials if trial.state == state]
        if not chosen:
            continue
        numbers = [trial.number for trial in chosen]
        axes.scatter(
            numbers, [trial_values(t)[0] for t in chosen], marker=marker, label=label, s=24
        )
    pick = max if study.settings.directions[0] == "max" else min
    steps: list[int] = []
    best: list[float] = []
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            steps.append(trial.number)
            best.append(pick([*best[-1:], trial_values(trial)[0]]))
    axes.step(
        steps,
        best,
        where="post",
        color="0.4",
        linewidth=1,
        label="best so far",
    )
    axes.set(xlabel="trial", ylabel=study.settings.metrics[0])
    axes.legend(frameon=False, fontsize=8)
    return figure


def _draw_parallel(study: SearchStudy, trials: Sequence[FrozenTrial]) -> Figure:
    """Draw a line for each trial through its values; the color is the metric."""
    keys = list(study.space.distributions)
    figure, axes = _new_figure(1.6 * len(keys) + 3, 4.5)
    values = [trial_values(trial)[0] for trial in trials]
    scale = Normalize(min(values), max(values))
    colors = colormaps[COLORS]
    order = sorted(range(len(trials)), key=lambda index: values[index])
    if study.settings.directions[0] == "min":
        order.reverse()
    for index in order:  # the best ones on top
        trial = trials[index]
        heights = [_height(study.space.distributions[key], trial.params[key]) for key in keys]
        style = "-" if trial.state == TrialState.COMPLETE else ":"
        axes.plot(
            range(len(keys)), heights, style, color=colors(scale(values[index])), linewidth=1.2
        )
    for position, key in enumerate(keys):
        _draw_axis(axes, position, study.space.distributions[key])
    axes.set_xticks(range(len(keys)), [_plain(key) for key in shorten_keys(keys)])
    axes.set_yticks([])
    axes.set(xlim=(-0.2, len(keys) - 0.6), ylim=(-0.05, 1.05))
    axes.spines[:].set_visible(False)
    figure.colorbar(
        ScalarMappable(scale, colors), ax=axes, label=study.settings.metrics[0], shrink=0.8
    )
    return figure


def _draw_axis(
    axes: Axes,
    position: int,
    distribution: BaseDistribution,
) -> None:
    """Draw a vertical axis with the values of an option."""
    axes.axvline(
        position,
        color="0.8",
        linewidth=0.8,
        zorder=0,
    )
    for value in _tick_values(distribution):
        axes.text(
            position + 0.03,
            _height(distribution, value),
            _plain(f"{value:.3g}" if isinstance(value, float) else str(value)),
            fontsize=7,
            color="0.3",
            va="center",
            bbox={"color": "white", "pad": 0.5},
        )


def _tick_values(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    numeric: Any = distribution
    low, high = float(numeric.low), float(numeric.high)
    if numeric.log:
        return [low * (high / low) ** (step / 3) for step in range(4)]
    return [low + (high - low) * step / 3 for step in range(4)]


def _height(distribution: BaseDistribution, value: Any) -> float:
    """Map a value to [0, 1]."""
    if isinstance(distribution, CategoricalDistribution):
        last = max(len(distribution.choices) - 1, 1)
        return distribution.choices.index(value) / last
    numeric: Any = distribution
    low, high = float(numeric.low), float(numeric.high)
    if high == low:
        return 0.5
    if numeric.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _draw_importances(study: SearchStudy, importances: Mapping[str, float]) -> Figure:
    figure, axes = _new_figure(6, 1.2 + 0.32 * max(len(importances), 2))
    names = [_plain(name) for name in shorten_keys(list(importances))]
    bars = axes.barh(range(len(names)), list(importances.values()), color="#4878a8")
    axes.set_yticks(range(len(names)), names)
    axes.bar_label(
        bars,
        fmt="%.2f",
        padding=3,
        fontsize=8,
    )
    axes.set(xlim=(0, 1.08), xlabel=f"importance for {study.settings.metrics[0]}")
    axes.invert_yaxis()
    return figure


def _new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(
        figsize=(width, height),
        dpi=100,
        layout="constrained",
    )
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plain(text: str) -> str:
    """Escape what matplotlib would draw as mathematics."""
    return text.replace("$", r"\$")
