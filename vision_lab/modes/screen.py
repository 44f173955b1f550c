"""What the modes print: short tables, in plain words."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import get_console
from rich.table import Table

from vision_lab.data.module import DataModule
from vision_lab.runs import Run
from vision_lab.tasks.base import Supervised


def say(text: str) -> None:
    """A line, as it is."""
    get_console().print(text, highlight=False, markup=False, soft_wrap=True)


def summary(run: Run, *, task: Supervised, data: DataModule, flops: int, notes: Sequence[str]) -> None:
    """What is about to be trained, on how much, and where it will lie."""
    parameters = list(task.network.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    spec = task.spec
    height, width = spec.image_size
    size = ", ".join(f"{len(dataset):,} {split}" for split, dataset in sorted(data.splits.items(), key=_in_order))
    choices = run.choices
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("model", f"{choices.get('model')}, head {choices.get('head')}")
    table.add_row("parameters", f"{sum(p.numel() for p in parameters):,}, of which {trained:,} are trained")
    table.add_row("compute", f"{_si(flops)}FLOPs a picture, forward")
    table.add_row("data", f"{choices.get('data')}: {size}; {spec.num_classes} classes, {spec.channels}x{height}x{width}")
    for note in notes:
        table.add_row("weights", note)
    table.add_row("run", str(run.folder))
    get_console().print(table, highlight=False)


def metrics(split: str, values: Mapping[str, float]) -> None:
    """A row for each metric."""
    table = Table(title=split, title_justify="left", show_header=False)
    for name, value in values.items():
        table.add_row(name, f"{value:.4f}")
    get_console().print(table, highlight=False)


def per_class(values: Mapping[str, Mapping[str, float]], *, most: int = 50) -> None:
    """A row for each class."""
    rows("by class", [{"class": name, **measured} for name, measured in values.items()], most=most)


def rows(title: str, found: Sequence[Mapping[str, str | float]], *, most: int = 20) -> None:
    """A table of rows of the same columns; beyond ``most`` it says how many there are."""
    table = Table(title=title, title_justify="left")
    for name in found[0]:
        table.add_column(name, overflow="fold")
    for row in found[:most]:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    get_console().print(table, highlight=False)
    if len(found) > most:
        say(f"... and {len(found) - most} more")


def unreadable(data: DataModule, folder: Path) -> None:
    """Say how many files were left out, and list them in ``unreadable.csv``."""
    if not data.unreadable:
        return
    file = folder / "unreadable.csv"
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(["path", "reason"])
        writer.writerows(sorted(data.unreadable.items()))
    say(f"{len(data.unreadable)} files could not be read and were left out; they are listed in {file}")


def _si(number: float) -> str:
    for prefix in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.3g} {prefix}"
        number /= 1000
    return f"{number:.3g} T"


def _in_order(item: tuple[str, object]) -> int:
    return ("train", "val", "test").index(item[0])
