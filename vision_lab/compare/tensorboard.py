"""A comparison in TensorBoard: for each group a curve with a band, and a row of HPARAMS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

from vision_lab.compare.comparison import ComparedGroup, Comparison
from vision_lab.compare.curves import read_curves
from vision_lab.compare.groups import Group
from vision_lab.compare.tables import list_metrics, summarize_metric
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import reject_link, reject_links
from vision_lab.loggers.event_files import (
    HPARAMS_FOLDER,
    EventFile,
    name_results,
)

FOLDER = "tensorboard"

BANDS_TITLE = "means and standard deviations of groups"
"""Heading of the charts on the CUSTOM SCALARS page."""

BAND_PREFIX = "with deviation"
"""First part of the names of the ends of a band."""

COMMON_CHOICES = ("model", "head", "data")
"""Groups of the config whose choice is shown although it is the same for all."""

MAX_GROUPS = 100
"""Maximum number of groups, the best ones."""

MAX_STEP = 2**62
"""Larger steps, which no run has, do not fit into an event."""

MAX_NAME = 80
"""Maximum number of characters of the name of a group's folder."""


def write_groups(comparison: Comparison, folder: Path) -> None:
    """Write a folder of event files for each group, in place of those of an earlier comparison.

    Args:
        comparison: the comparison.
        folder: folder of the comparison.
    """
    root = folder / FOLDER
    reject_link(root)
    if root.exists():
        reject_links(root)
        rmtree(root)
    metric = comparison.metric
    word = metric.rpartition("/")[2]
    curves = dict.fromkeys([metric, f"train/{word}", f"val/{word}", "train/loss", "val/loss"])
    for rank, item in enumerate(comparison.groups[:MAX_GROUPS], start=1):
        group_folder = root / _name_folder(rank, item)
        _write_curves(group_folder, item.group, list(curves))
        _write_row(group_folder / HPARAMS_FOLDER, comparison, item)


def _name_folder(rank: int, item: ComparedGroup) -> str:
    """Return a name that is safe for any file system; its first part is the rank."""
    name = re.sub(r"[^\w.=+-]+", "-", item.group.short_name, flags=re.ASCII)[:MAX_NAME]
    return f"{rank:02d} {name}"


def _write_curves(folder: Path, group: Group, metrics: Sequence[str]) -> None:
    """Write the mean of each metric by step, and the ends of a band of one deviation."""
    steps = _read_steps(group)
    file = EventFile(folder)
    bands = {}
    for name, curve in read_curves(group, metrics).items():
        lower, upper = (f"{BAND_PREFIX}/{name} {end}" for end in ("lower", "upper"))
        bands[name] = (name, lower, upper)
        for epoch, mean, deviation in zip(*curve, strict=True):
            values = {name: mean, lower: mean - deviation, upper: mean + deviation}
            file.add_scalars(values, step=steps.get(epoch, epoch))
    file.add_band_charts(BANDS_TITLE, bands)
    file.close()


def _read_steps(group: Group) -> dict[int, int]:
    """Read the step at which runs log each epoch, from 1; all runs of a group have the same ones.

    In TensorBoard, Lightning counts the batch after which an epoch is logged from 0.
    """
    steps = {}
    for finished in group.runs:
        # A damaged file: the steps of another run.
        with suppress(ConfigurationError, OSError, KeyError, TypeError, ValueError):
            for row in finished.run.read_rows("metrics.csv"):
                steps[int(row["epoch"]) + 1] = min(int(row["step"]) - 1, MAX_STEP)
            break
    return steps


def _write_row(folder: Path, comparison: Comparison, item: ComparedGroup) -> None:
    """Write the settings of a group and the means of its metrics."""
    file = EventFile(folder)
    settings: dict[str, str | float] = {"runs": len(item.group.runs)}
    for name in COMMON_CHOICES:
        settings[name] = str(item.group.runs[0].choices.get(name))
    for name, value in item.group.settings.items():
        settings[name] = _to_number(value)
    file.start_session(settings)
    word = comparison.metric.rpartition("/")[2]
    names = dict.fromkeys([comparison.metric, f"test/{word}", "test/loss"])
    known = (comparison.metric, *list_metrics(comparison))
    means = {}
    for name in known:
        summary = summarize_metric(item, name)
        if summary.size:
            means[name] = summary.mean
    file.add_scalars(name_results(means, names), step=0)
    file.end_session("finished")
    file.close()


def _to_number(value: str) -> str | float:
    """Convert the text of a number, so that its column is one of numbers."""
    try:
        return float(value)
    except ValueError:
        return value
