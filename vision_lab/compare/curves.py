"""Training curves of groups: means and standard deviations over seeds, by epoch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from vision_lab.compare.groups import Group
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.text import first_line


class Curve(NamedTuple):
    """A metric of a group by epoch.

    Attributes:
        epochs: the epochs, from 1.
        means: the mean over the runs that have a value in it.
        deviations: the standard deviation over these runs; 0 for a single one.
    """

    epochs: list[int]
    means: list[float]
    deviations: list[float]


def read_curves(group: Group, metrics: Sequence[str]) -> dict[str, Curve]:
    """Read the curves of a group.

    Args:
        group: the group.
        metrics: names of metrics in ``metrics.csv``.

    Returns:
        The curve of each metric of which there are values.
    """
    values: dict[str, dict[int, list[float]]] = {name: {} for name in metrics}
    for finished in group.runs:
        with suppress(ConfigurationError, OSError):  # a damaged file: a curve of fewer runs
            for row in finished.run.read_rows("metrics.csv"):
                for name in metrics:
                    _add_value(values[name], row, name)
    curves = {}
    for name, by_epoch in values.items():
        if by_epoch:
            curves[name] = _average(by_epoch)
    return curves


def find_damaged_curves(groups: Sequence[Group]) -> list[str]:
    """Describe each run whose curves cannot be read, so that a curve is that of the others.

    Args:
        groups: the groups whose curves are shown.
    """
    damaged = []
    for group in groups:
        for finished in group.runs:
            try:
                finished.run.read_rows("metrics.csv")
            except (ConfigurationError, OSError) as error:
                damaged.append(f"the curves are without {finished.run}: {first_line(error)}")
    return damaged


def _add_value(values: dict[int, list[float]], row: dict[str, str], name: str) -> None:
    """Add a finite value of a row to those of its epoch."""
    try:
        epoch, value = int(row["epoch"]) + 1, float(row[name])
    except (KeyError, TypeError, ValueError):
        return
    if math.isfinite(value):
        values.setdefault(epoch, []).append(value)


def _average(by_epoch: dict[int, list[float]]) -> Curve:
    epochs = sorted(by_epoch)
    means = [statistics.mean(by_epoch[epoch]) for epoch in epochs]  # fmean overflows
    deviations = []
    for epoch in epochs:
        found = by_epoch[epoch]
        deviations.append(statistics.stdev(found) if len(found) > 1 else 0.0)
    return Curve(epochs, means, deviations)
