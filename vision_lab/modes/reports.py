"""Tables and lines that the modes print. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import get_console
from rich.table import Table
from rich.text import Text

from vision_lab.core.console import print_line, print_warning
from vision_lab.core.files import format_path, write_csv
from vision_lab.core.text import display_text, format_si, shorten_middle
from vision_lab.run_folders.folder import Run

if TYPE_CHECKING:
    from vision_lab.data.module import DataModule
    from vision_lab.tasks.base import Task

MAX_CLASSES_LISTED = 50

MIN_COLUMNS = 3

MIN_FIRST_WIDTH = 16
"""Minimum width of the first column, often a path, whose middle is left out if it is longer."""
"""Columns that a table keeps on any terminal."""

SPLIT_ORDER = ("train", "val", "test")


def print_summary(
    run: Run, *, task: Task, data: DataModule, flops: int, notes: Sequence[str]
) -> None:
    """Print what a run trains, on which data, and its folder.

    Args:
        run: the run.
        task: its task.
        data: its data, already set up.
        flops: floating-point operations of a forward pass of one image.
        notes: lines about pretrained weights.
    """
    parameters = list(task.network.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    trainable = 0
    for parameter in parameters:
        if parameter.requires_grad:
            trainable += parameter.numel()
    spec, choices = task.spec, run.choices
    height, width = spec.image_size
    splits = sorted(data.splits.items(), key=lambda item: SPLIT_ORDER.index(item[0]))
    sizes = ", ".join(f"{len(dataset):,} {split}" for split, dataset in splits)
    table = Table(
        show_header=False,
        box=None,
        pad_edge=False,
    )
    _add_row(table, "model", f"{choices.get('model')}, head {choices.get('head')}")
    if task.learns_by_gradients:  # others have their parameters after the first round
        _add_row(table, "parameters", f"{total:,}, of which {trainable:,} trainable")
    if flops:  # not those of networks that are applied to proposals, whose number varies
        _add_row(table, "compute", f"{format_si(flops)}FLOPs per image, forward")
    _add_row(
        table,
        "data",
        f"{choices.get('data')}: {sizes}; {spec.num_classes} classes, "
        f"{spec.channels}x{height}x{width}",
    )
    for note in notes:
        _add_row(table, "weights", note)
    get_console().print(table, highlight=False)
    print_line(f"run         {run}")


def print_metrics(
    title: str, metrics: Mapping[str, float], *, settings: Mapping[str, Any] | None = None
) -> None:
    """Print a row for each metric.

    Args:
        title: title of the table.
        metrics: values by name.
        settings: settings that the metrics depend on, printed below the table.
    """
    table = Table(
        title=title,
        title_justify="left",
        show_header=False,
    )
    for name, value in metrics.items():
        _add_row(table, name, f"{value:.4f}")
    get_console().print(table, highlight=False)
    if settings:
        text = ", ".join(f"{name} {value}" for name, value in settings.items())
        print_line(f"measured with {text}")


def print_per_class(metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Print a row for each class.

    Args:
        metrics: values by name, by class.
    """
    rows: list[dict[str, str | float]] = []
    for name, values in metrics.items():
        rows.append({"class": name, **values})
    print_table("per class", rows, max_rows=MAX_CLASSES_LISTED)


def print_table(
    title: str, rows: Sequence[Mapping[str, str | float]], *, max_rows: int = 20
) -> None:
    """Print a table with as many columns as fit the terminal.

    Args:
        title: title of the table.
        rows: values by column; all rows have the same columns. Nothing is printed without rows.
        max_rows: maximum number of rows to print; a last line gives the number of further rows.
    """
    if not rows:
        return
    get_console().print(make_table(title, rows[:max_rows]), highlight=False)
    if len(rows) > max_rows:
        print_line(f"... and {len(rows) - max_rows} more")


def make_table(title: str, rows: Sequence[Mapping[str, str | float]]) -> Table:
    """Make a table with as many columns as fit the terminal.

    Args:
        title: title of the table.
        rows: values by column, at least one; all rows have the same columns.
    """
    cells = [[display_text(name) for name in rows[0]]]
    for row in rows:
        cells.append([_format_cell(value) for value in row.values()])
    widths = [max(map(len, column)) + 3 for column in zip(*cells, strict=True)]
    ends = accumulate(widths, initial=1)
    fitting = sum(end < get_console().width for end in ends) - 1
    num_columns = max(MIN_COLUMNS, fitting)
    available = get_console().width - 1 - sum(widths[1:num_columns]) - 3
    first_width = max(available, MIN_FIRST_WIDTH)
    table = Table(title=Text(display_text(title)), title_justify="left")
    for name in cells[0][:num_columns]:
        table.add_column(Text(name), overflow="fold")
    for first, *others in cells[1:]:
        _add_row(table, shorten_middle(first, first_width), *others[: num_columns - 1])
    return table


def report_annotation_issues(data: DataModule, folder: Path) -> None:
    """Print the number of invalid annotations, and list them in ``annotation_issues.csv``.

    Args:
        data: the data, already set up.
        folder: folder of the file.
    """
    issues = data.annotation_issues
    if not issues:
        return
    file = folder / "annotation_issues.csv"
    write_csv(folder, file.name, [issue._asdict() for issue in issues])
    print_warning(
        f"{len(issues)} annotations are invalid: boxes were clipped or dropped, or images left "
        f"out; see {format_path(file)}"
    )


def report_unreadable(data: DataModule, folder: Path) -> None:
    """Print the number of unreadable files that were skipped, and list them in ``unreadable.csv``.

    Args:
        data: the data, after it was read.
        folder: folder of the file.
    """
    if not data.unreadable:
        return
    file = folder / "unreadable.csv"
    rows = [{"path": path, "reason": reason} for path, reason in sorted(data.unreadable.items())]
    write_csv(folder, file.name, rows)
    print_line(f"{len(rows)} unreadable files were skipped; see {format_path(file)}")


def _add_row(table: Table, *cells: str) -> None:
    """Add a row of text, in which Rich interprets no markup."""
    table.add_row(*(Text(display_text(cell)) for cell in cells))


def _format_cell(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return display_text(value)
