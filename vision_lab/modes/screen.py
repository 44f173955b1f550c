"""What the modes print: short tables, in plain words. No torch here."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import get_console
from rich.table import Table
from rich.text import Text

from vision_lab.core.files import format_path, write_csv
from vision_lab.core.text import display_text
from vision_lab.runs.folder import Run

if TYPE_CHECKING:
    from vision_lab.data.module import DataModule
    from vision_lab.tasks.base import Task

SILENCED = {
    r".*isinstance\(treespec, LeafSpec\).*": "Lightning 2.6 calls an old function of torch's; ours to wait for",
    r"The image decoding and encoding capabilities of TorchVision are deprecated": "bounded in pyproject.toml",
    r".*module\(s\) in eval mode at the start of training.*": "that is what model.freeze asks for",
    r".*It is recommended to use `self.log\(.*sync_dist=True\)`.*": "what is logged was computed over all processes",
    r".*does not have many workers.*": "data.num_workers is chosen by the data's config, which knows better",
    r".*Checkpoint directory .* exists and is not empty.*": "the folder is the run's own",
    r".*resuming from a checkpoint that ended before the epoch ended.*": "our order of samples goes on where it was",
    r"Using padding='same' with even kernel lengths.*": "a dilated ConvNeXt needs it; the copy is small",
    r".*max_unpooling2d_forward_out does not have a deterministic.*": "SegNet's places are distinct: any order will do",
    r".*custom batch sampler `Order` for prediction.*": "it yields each sample once",
    r".*number of training batches \(\d+\) is smaller than the logging interval.*": "debug runs are meant to be short",
}
"""message: why it is left out."""


def quieten() -> None:
    """Leave out what libraries say at every start and nobody can act on; their other warnings stay."""
    # Which accelerators there are not, and advertisements; a table of measures for each class after each epoch.
    for library in ("pytorch_lightning", "faster_coco_eval"):
        logging.getLogger(library).setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_make_harmless)
    for message in SILENCED:
        warnings.filterwarnings("ignore", message=message)


def _make_harmless(record: logging.LogRecord) -> bool:
    """Show names of files and classes in a line of the log as ``display_text`` does."""
    record.msg, record.args = display_text(record.getMessage()), ()
    return True


def say(text: str) -> None:
    """A line, as it is."""
    get_console().print(Text(display_text(text)), highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """A line that should not be overlooked."""
    line = Text.assemble(("warning:", "yellow"), f" {display_text(text)}")
    get_console().print(line, highlight=False, soft_wrap=True)


def summary(run: Run, *, task: Task, data: DataModule, flops: int, notes: Sequence[str]) -> None:
    """What is about to be trained, on how much, and where it will lie."""
    parameters = list(task.network.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    spec = task.spec
    height, width = spec.image_size
    size = ", ".join(f"{len(dataset):,} {split}" for split, dataset in sorted(data.splits.items(), key=_in_order))
    choices = run.choices
    table = Table(show_header=False, box=None, pad_edge=False)
    _add_row(table, "model", f"{choices.get('model')}, head {choices.get('head')}")
    table.add_row("parameters", f"{sum(p.numel() for p in parameters):,}, of which {trained:,} are trained")
    table.add_row("compute", f"{_si(flops)}FLOPs a picture, forward")
    table.add_row(
        "data", f"{choices.get('data')}: {size}; {spec.num_classes} classes, {spec.channels}x{height}x{width}"
    )
    for note in notes:
        _add_row(table, "weights", note)
    get_console().print(table, highlight=False)
    say(f"run          {run}")


def metrics(split: str, values: Mapping[str, float], *, measured_with: Mapping[str, Any] | None = None) -> None:
    """A row for each metric, and what they were measured with."""
    table = Table(title=split, title_justify="left", show_header=False)
    for name, value in values.items():
        _add_row(table, name, f"{value:.4f}")
    get_console().print(table, highlight=False)
    if measured_with:
        say("measured with " + ", ".join(f"{name} {value}" for name, value in measured_with.items()))


def per_class(values: Mapping[str, Mapping[str, float]], *, most: int = 50) -> None:
    """A row for each class."""
    rows("by class", [{"class": name, **measured} for name, measured in values.items()], most=most)


def rows(title: str, found: Sequence[Mapping[str, str | float]], *, most: int = 20) -> None:
    """A table of rows of the same columns: as many columns as fit, and beyond ``most`` rows how many more there are."""
    if not found:
        return
    cells = [[display_text(name) for name in found[0]]]
    cells += [[f"{v:.3f}" if isinstance(v, float) else display_text(v) for v in row.values()] for row in found[:most]]
    widths = [max(map(len, column)) + 3 for column in zip(*cells, strict=True)]
    fitting = sum(total < get_console().width for total in accumulate(widths, initial=1)) - 1
    table = Table(title=Text(display_text(title)), title_justify="left")
    for name in cells[0][: max(3, fitting)]:
        table.add_column(Text(name), overflow="fold")
    for row in cells[1:]:
        _add_row(table, *row[: max(3, fitting)])
    get_console().print(table, highlight=False)
    if len(found) > most:
        say(f"... and {len(found) - most} more")


def broken(data: DataModule, folder: Path) -> None:
    """Say how many annotations were broken, and list them in ``broken.csv``."""
    if data.faults:
        file = folder / "broken.csv"
        write_csv(folder, file.name, [fault._asdict() for fault in data.faults])
        warn(
            f"{len(data.faults)} annotations are broken, so that boxes are clipped or dropped, or pictures left out; "
            f"they are listed in {format_path(file)}"
        )


def unreadable(data: DataModule, folder: Path) -> None:
    """Say how many files were left out, and list them in ``unreadable.csv``."""
    if data.unreadable:
        file = folder / "unreadable.csv"
        rows = [{"path": path, "reason": reason} for path, reason in sorted(data.unreadable.items())]
        write_csv(folder, file.name, rows)
        say(f"{len(data.unreadable)} files could not be read and were left out; they are listed in {format_path(file)}")


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
