"""Tables of a comparison: on the screen, in CSV, Markdown and JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vision_lab.compare.comparison import ComparedGroup, Comparison
from vision_lab.compare.groups import EVERYTHING
from vision_lab.compare.runs import COSTS
from vision_lab.compare.statistics import Summary, summarize
from vision_lab.core.text import display_text, escape_markdown, format_si

COST_COLUMNS = {
    "seconds": "seconds",
    "parameters": "parameters",
    "flops": "FLOPs",
    "images_per_second": "images/s",
    "peak_memory": "peak memory",
}

UNITS = {"flops": "FLOPs", "peak_memory": "B"}
"""Units of costs; parameters and images per second are numbers."""


def make_rows(comparison: Comparison, *, all_metrics: bool = True) -> list[dict[str, str]]:
    """Return a row for each group, with values as text.

    Args:
        comparison: the comparison.
        all_metrics: whether to add all other metrics after the costs.
    """
    metrics = list_metrics(comparison)
    rows = []
    for item in comparison.groups:
        row = {key: _shorten(value) for key, value in item.group.settings.items()}
        row = row or {"runs": EVERYTHING}
        if item.group.num_folds is not None:
            row["folds"] = str(item.summary.size)
            row["seeds"] = str(len({run.pairing.get("seed") for run in item.group.runs}))
        else:
            row["seeds"] = str(item.summary.size)
        row[comparison.metric] = format_summary(item.summary)
        row["verdict"] = item.verdict
        row["difference"] = format_difference(item)
        for name in metrics[:1]:
            row[name] = format_summary(summarize_metric(item, name))
        for name, value in average_costs(item).items():
            row[COST_COLUMNS[name]] = format_cost(name, value)
        for name in metrics[1:] if all_metrics else ():
            row[name] = format_summary(summarize_metric(item, name))
        rows.append(row)
    return _with_equal_columns(rows)


def _with_equal_columns(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    columns: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row)
    return [{column: row.get(column, "") for column in columns} for row in rows]


def list_metrics(comparison: Comparison) -> list[str]:
    """List the metrics besides the one that is compared, that of the same name first."""
    names: dict[str, None] = {}
    for item in comparison.groups:
        for run in item.group.runs:
            names |= dict.fromkeys(run.metrics)
    names.pop(comparison.metric, None)
    word = comparison.metric.rpartition("/")[2]
    return sorted(names, key=lambda name: name.rpartition("/")[2] != word)


def _shorten(value: str) -> str:
    """Round a number to four digits."""
    try:
        number = float(value)
    except ValueError:
        return value
    return value if number.is_integer() else f"{number:.4g}"


def summarize_metric(item: ComparedGroup, name: str) -> Summary:
    """Summarize a metric over the runs of a group."""
    values = list(item.group.values(name).values())
    return summarize(values, overlap=item.group.overlap)


def average_costs(item: ComparedGroup) -> dict[str, float]:
    """Return the mean of each cost over the runs of a group that have it."""
    costs = {}
    for name in COSTS:
        values = [run.costs[name] for run in item.group.runs if name in run.costs]
        if values:
            costs[name] = math.fsum(values) / len(values)
    return costs


def format_summary(summary: Summary) -> str:
    """Format a mean with its standard deviation."""
    if summary.size == 0:
        return "-"
    if summary.deviation is None:
        return f"{summary.mean:.4f}"
    return f"{summary.mean:.4f} ± {summary.deviation:.4f}"


def format_difference(item: ComparedGroup) -> str:
    """Format the difference from the reference, with its interval."""
    difference = item.difference
    if difference is None or math.isnan(difference.mean):
        return ""
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.4f}"
    return f"{difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"


def format_cost(name: str, value: float) -> str:
    """Format a cost with its unit."""
    if name == "seconds":
        return f"{value:.0f} s"
    return f"{format_si(value)}{UNITS.get(name, '')}".rstrip()


def make_markdown(comparison: Comparison, *, command: str, plot: str) -> str:
    """Return a part of a README: the table, the plot, what is left out, and the command.

    Args:
        comparison: the comparison.
        command: the command that has made it.
        plot: file name of the plot.
    """
    rows = make_rows(comparison, all_metrics=False)
    columns = list(rows[0])
    lines = [
        f"| {' | '.join(map(escape_markdown, columns))} |",
        f"|{'|'.join('---' for _ in columns)}|",
    ]
    for row in rows:
        lines.append(f"| {' | '.join(map(escape_markdown, row.values()))} |")
    title = escape_markdown(f"{comparison.metric} of {len(comparison.groups)} groups")
    lines += ["", f"![{title}]({plot})", ""]
    lines += [f"- Warning: {escape_markdown(text)}" for text in comparison.warnings]
    for item in comparison.left_out:
        lines.append(f"- Left out: {escape_markdown(f'{item.run}: {item.reason}')}")
    lines += ["", f"    {display_text(command)}"]  # a code block
    return "\n".join(lines) + "\n"


def make_json(comparison: Comparison) -> dict[str, Any]:
    """Return all numbers of a comparison, unrounded."""
    groups = []
    for item in comparison.groups:
        metrics = {
            name: summarize_metric(item, name)._asdict()
            for name in (comparison.metric, *list_metrics(comparison))
        }
        groups.append(
            {
                "settings": dict(item.group.settings),
                "runs": [str(run.run) for run in item.group.runs],
                "metrics": metrics,
                "difference": item.difference._asdict() if item.difference else None,
                "verdict": item.verdict,
                "costs": average_costs(item),
            }
        )
    return {
        "task": comparison.task,
        "metric": comparison.metric,
        "direction": comparison.direction,
        "reference": dict(comparison.reference.settings),
        "groups": groups,
        "left_out": [{"run": str(item.run), "reason": item.reason} for item in comparison.left_out],
        "warnings": list(comparison.warnings),
    }
