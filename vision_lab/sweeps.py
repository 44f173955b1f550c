"""What a sweep (``-m``) came to: read from its folder, whoever ran its jobs."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from vision_lab.runs import Run

_started: list[Path] = []


class SweepFolder(Callback):
    """Hydra calls it in the process that starts a sweep: notes where the sweep lies."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        _started.append(Path(config.hydra.sweep.dir))


def started() -> Path | None:
    """The folder of the sweep that this command started; None where it started none."""
    return _started.pop() if _started else None


def runs(folder: Path) -> list[Run]:
    """The runs of a sweep."""
    return [Run(path.parent) for path in sorted(folder.glob("*/status.json"))]


def show(folder: Path) -> None:
    """Print a row for each run: its state and test metrics, or why it failed."""
    found = runs(folder)
    results = {run: (run.result or {}).get("metrics", {}) for run in found}
    columns = list(dict.fromkeys(name for metrics in results.values() for name in metrics))
    table = Table(title=f"{folder}: {len(found)} runs", title_justify="left")
    for heading in ("run", "state", *columns):
        table.add_column(heading, overflow="fold")
    for run, metrics in results.items():
        shown = [f"{metrics[name]:.4f}" if name in metrics else "" for name in columns]
        table.add_row(run.folder.name, run.state, *shown)
    console = Console()
    console.print(table)
    for run in found:
        if run.state == "failed":
            console.print(f"{run.folder.name} failed: {run.error}", highlight=False, markup=False)
