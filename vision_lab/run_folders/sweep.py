"""Sweeps (``-m``): their folder, exit code and table of results. Does not import torch."""

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
from vision_lab.run_folders.folder import Run

_active_sweep: list[Path] = []
"""Folder of the sweep that this command has started; empty for a single run."""


class SweepRefused(BaseException):
    """Raised if a sweep cannot start.

    Not an ``Exception``: Hydra logs exceptions of callbacks as warnings and continues.
    """


class SweepCallback(Callback):
    """Hydra callback that records the folder of a sweep, and refuses folders of single runs."""

    def on_multirun_start(
        self,
        config: DictConfig,
        **_: Any,
    ) -> None:
        if config.get("resume"):
            raise SweepRefused(
                "resume= continues a single run: to continue a sweep, repeat its command"
            )
        folder = Path(config.hydra.sweep.dir)
        if Run(folder).is_initialized:
            raise SweepRefused(f"{Run(folder)} is a single run, not a sweep: type another name=")
        _active_sweep.append(folder)


def has_started() -> bool:
    """Return whether this command has started a sweep."""
    return bool(_active_sweep)


def reset() -> None:
    """Forget the sweep of an earlier command in this process, or one without any started run."""
    _active_sweep.clear()


def finish_sweep() -> int:
    """Print the results of this command's sweep, if it has started one.

    Returns:
        The exit code: 1 if a run failed, else 0.
    """
    if not _active_sweep:
        return 0
    runs = find_runs(_active_sweep.pop())
    if runs:
        print_results(runs)
    return int(any(run.state == "failed" for run in runs))


def find_runs(folder: Path) -> list[Run]:
    """List the runs in the folder of a sweep."""
    return [Run(path.parent) for path in sorted(folder.glob("*/status.json"))]


def print_results(runs: Sequence[Run]) -> None:
    """Print a table with the state and test metrics of each run, then the errors of failed runs.

    Args:
        runs: the runs of a sweep, at least one. The table has as many metrics as fit the width of
            the terminal, the monitored ones first.
    """
    console = Console()
    results = [_read_result(run) for run in runs]
    longest = max(len(run.folder.name) for run in runs)
    columns = _select_metrics(results, width=console.width - longest - len("finished") - 8)
    title = Text(f"{runs[0].folder.parent}: {len(runs)} runs")
    table = Table(title=title, title_justify="left")
    table.add_column("run", no_wrap=True)
    table.add_column("state")
    for column in columns:
        table.add_column(column)
    for run, result in zip(runs, results, strict=True):
        metrics = result.get("metrics", {})
        cells = [f"{metrics[name]:.4f}" if name in metrics else "" for name in columns]
        table.add_row(Text(display_text(run.folder.name)), run.state or "", *cells)
    console.print(table)
    for run in runs:
        if run.state == "failed":
            line = Text(display_text(f"{run.folder.name} failed: {run.error}"))
            console.print(line, highlight=False, soft_wrap=True)


def _read_result(run: Run) -> dict[str, Any]:
    """Return the result of a run; empty if it has none, or if the file is damaged."""
    try:
        return run.result or {}
    except ConfigurationError:
        return {}


def _select_metrics(results: Sequence[dict[str, Any]], *, width: int) -> list[str]:
    """Select the metrics whose columns fit into a table, at least one if there are any."""
    names: dict[str, None] = {}
    monitored = set()
    for result in results:
        names |= dict.fromkeys(result.get("metrics", {}))
        monitored |= {name.rpartition("/")[2] for name in result.get("monitored", {})}
    ordered = sorted(names, key=lambda name: name.rpartition("/")[2] not in monitored)
    ends = accumulate(len(name) + 3 for name in ordered)
    fitting = []
    for name, end in zip(ordered, ends, strict=True):
        if end < width:
            fitting.append(name)
    return fitting or ordered[:1]
