"""What a sweep (``-m``) came to: read from its folder, whoever ran its jobs."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.text import display_text
from vision_lab.runs.folder import Run

_active_sweep: list[Path] = []


class SweepRefused(BaseException):
    """A sweep that cannot be; not an ``Exception``, which Hydra would take from a callback for a warning."""


class SweepCallback(Callback):
    """Hydra calls it in the process that starts a sweep: notes where the sweep lies, and that no run lies there."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        if config.get("resume"):
            raise SweepRefused("resume= goes on with one run: to go on with a sweep, type its command again")
        folder = Path(config.hydra.sweep.dir)
        if Run(folder).is_initialized:
            raise SweepRefused(f"{Run(folder)} is a single run, not a sweep: type another name=")
        _active_sweep.append(folder)


def sweep_started() -> bool:
    """Whether this command has started a sweep."""
    return bool(_active_sweep)


def reset() -> None:
    """A new command, or a sweep that came to nothing: not one of its runs began."""
    _active_sweep.clear()


def finish_sweep() -> int:
    """Print what the sweep of this command came to, where there was one.

    Returns:
        1 where a run failed, else 0.
    """
    if not _active_sweep:
        return 0
    found = runs(_active_sweep.pop())
    if found:
        print_results(found)
    return int(any(run.state == "failed" for run in found))


def runs(folder: Path) -> list[Run]:
    """The runs of a sweep."""
    return [Run(path.parent) for path in sorted(folder.glob("*/status.json"))]


def _result(run: Run) -> dict[str, Any]:
    """What a run came to; nothing where it has not, or its file is damaged."""
    try:
        return run.result or {}
    except ConfigurationError:
        return {}


def print_results(found: Sequence[Run]) -> None:
    """Print a row for each run: its state and as many of its test metrics as fit; then why runs failed."""
    console = Console()
    stored = [_result(run) for run in found]
    results = [result.get("metrics", {}) for result in stored]
    names = dict.fromkeys(name for metrics in results for name in metrics)
    monitored = {name.rpartition("/")[2] for result in stored for name in result.get("monitored", {})}
    columns = sorted(names, key=lambda name: name.rpartition("/")[2] not in monitored)
    space = console.width - max((len(run.folder.name) for run in found), default=0) - len("finished") - 8
    table = Table(
        title=Text(f"{found[0].folder.parent}: {len(found)} runs" if found else "no runs"), title_justify="left"
    )
    table.add_column("run", no_wrap=True)
    table.add_column("state")
    fitting = [
        name for name, end in zip(columns, accumulate(len(name) + 3 for name in columns), strict=True) if end < space
    ]
    for name in fitting or columns[:1]:
        table.add_column(name)
    for run, metrics in zip(found, results, strict=True):
        shown = [f"{metrics[name]:.4f}" if name in metrics else "" for name in fitting or columns[:1]]
        table.add_row(Text(display_text(run.folder.name)), run.state or "", *shown)
    console.print(table)
    for run in found:
        if run.state == "failed":
            line = Text(display_text(f"{run.folder.name} failed: {run.error}"))
            console.print(line, highlight=False, soft_wrap=True)
