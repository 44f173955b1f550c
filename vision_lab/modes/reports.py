"""What the modes print: short tables, in plain words. No torch here."""

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
from vision_lab.core.text import display_text
from vision_lab.runs.folder import Run

if TYPE_CHECKING:
    from vision_lab.data.module import DataModule
    from vision_lab.tasks.base import Task


def summary(run: Run, *, task: Task, data: DataModule, flops: int, notes: Sequence[str]) -> None:
    """What is about to be trained, on how much, and where it will lie."""
    parameters = list(task.network.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    spec = task.spec
    height, width = spec.image_size
    size = ", ".join(
        f"{len(dataset):,} {split}" for split, dataset in sorted(data.splits.items(), key=_in_order)
    )
    choices = run.choices
    table = Table(show_header=False, box=None, pad_edge=False)
    _add_row(table, "model", f"{choices.get('model')}, head {choices.get('head')}")
    table.add_row(
        "parameters", f"{sum(p.numel() for p in parameters):,}, of which {trained:,} are trained"
    )
    table.add_row("compute", f"{_si(flops)}FLOPs a picture, forward")
    table.add_row(
        "data",
        f"{choices.get('data')}: {size}; {spec.num_classes} classes, {spec.channels}x{height}x{width}",
    )
    for note in notes:
        _add_row(table, "weights", note)
    get_console().print(table, highlight=False)
    print_line(f"run          {run}")


def metrics(
    split: str, values: Mapping[str, float], *, measured_with: Mapping[str, Any] | None = None
) -> None:
    """A row for each metric, and what they were measured with."""
    table = Table(title=split, title_justify="left", show_header=False)
    for name, value in values.items():
        _add_row(table, name, f"{value:.4f}")
    get_console().print(table, highlight=False)
    if measured_with:
        print_line(
            "measured with " + ", ".join(f"{name} {value}" for name, value in measured_with.items())
        )


def per_class(values: Mapping[str, Mapping[str, float]], *, most: int = 50) -> None:
    """A row for each class."""
    print_table(
        "by class", [{"class": name, **measured} for name, measured in values.items()], most=most
    )


def print_table(title: str, found: Sequence[Mapping[str, str | float]], *, most: int = 20) -> None:
    """A table of rows of the same columns: as many columns as fit, and beyond ``most`` rows how many more there are."""
    if not found:
        return
    cells = [[display_text(name) for name in found[0]]]
    cells += [
        [f"{v:.3f}" if isinstance(v, float) else display_text(v) for v in row.values()]
        for row in found[:most]
    ]
    widths = [max(map(len, column)) + 3 for column in zip(*cells, strict=True)]
    fitting = sum(total < get_console().width for total in accumulate(widths, initial=1)) - 1
    table = Table(title=Text(display_text(title)), title_justify="left")
    for name in cells[0][: max(3, fitting)]:
        table.add_column(Text(name), overflow="fold")
    for row in cells[1:]:
        _add_row(table, *row[: max(3, fitting)])
    get_console().print(table, highlight=False)
    if len(found) > most:
        print_line(f"... and {len(found) - most} more")


def report_annotation_issues(data: DataModule, folder: Path) -> None:
    """Say how many annotations were broken, and list them in ``annotation_issues.csv``."""
    if data.annotation_issues:
        file = folder / "annotation_issues.csv"
        write_csv(folder, file.name, [fault._asdict() for fault in data.annotation_issues])
        print_warning(
            f"{len(data.annotation_issues)} annotations are broken, so that boxes are clipped or dropped, or pictures left out; "
            f"they are listed in {format_path(file)}"
        )


def unreadable(data: DataModule, folder: Path) -> None:
    """Say how many files were left out, and list them in ``unreadable.csv``."""
    if data.unreadable:
        file = folder / "unreadable.csv"
        rows = [
            {"path": path, "reason": reason} for path, reason in sorted(data.unreadable.items())
        ]
        write_csv(folder, file.name, rows)
        print_line(
            f"{len(data.unreadable)} files could not be read and were left out; they are listed in {format_path(file)}"
        )


def _add_row(table: Table, *cells: str) -> None:
    """Add a row of text in which Rich reads no marks."""
    table.add_row(*(Text(display_text(cell)) for cell in cells))


def _si(number: float) -> str:
    for prefix in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.3g} {prefix}"
        number /= 1000
    return f"{number:.3g} T"


def _in_order(item: tuple[str, object]) -> int:
    return ("train", "val", "test").index(item[0])
