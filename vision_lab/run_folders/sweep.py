"""Sweeps (``-m``): their folder, exit code and table of results. Does not import torch."""

from collections.abc import Mapping, Sequence
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


MAX_NAME_WIDTH = 40
"""Characters of a folder name that are kept on one line."""

_exit_codes: list[int] = []
"""Exit code of a search, which prints its own results."""


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
    _exit_codes.clear()


def finish_with(code: int) -> None:
    """Set the exit code of a sweep whose results have been printed."""
    _exit_codes.append(code)


def finish_sweep() -> int:
    """Print the results of this command's sweep, if it has started one.

    Returns:
        The exit code: 1 if a run failed, else 0.
    """
    if not _active_sweep:
        return 0
    folder = _active_sweep.pop()
    if _exit_codes:
        return _exit_codes.pop()
    runs = find_runs(folder)
    if runs:
        print_results(runs)
    return int(any(run.state == "failed" for run in runs))


def find_runs(folder: Path) -> list[Run]:
    """List the runs in the folder of a sweep."""
    return [Run(path.parent) for path in sorted(folder.glob("*/status.json"))]


def print_results(runs: Sequence[Run]) -> None:
    """Print a table with the results of each run, the best ones first, then the errors.

    Args:
        runs: the runs of a sweep, at least one. The table has the metric by which checkpoints were
            selected, as many test metrics as fit the width of the terminal, and the seconds.
    """
    console = Console()
    results = {run: _read_result(run) for run in runs}
    ordered = sorted(runs, key=lambda run: _order(run, results[run]))
    monitors: dict[str, None] = {}
    for result in results.values():
        monitors |= dict.fromkeys(result.get("monitored", {}))
    longest = min(MAX_NAME_WIDTH, max(len(run.folder.name) for run in runs))
    taken = sum(len(name) + 3 for name in (*monitors, "finished", "seconds")) + longest + 5
    columns = _select_metrics(list(results.values()), width=console.width - taken)
    title = Text(f"{runs[0].folder.parent}: {len(runs)} runs")
    table = Table(title=title, title_justify="left")
    table.add_column("run", overflow="fold")
    for column in ("state", *monitors, *columns, "seconds"):
        table.add_column(column, no_wrap=True)
    for run in ordered:
        result = results[run]
        values = {**result.get("metrics", {}), **result.get("monitored", {})}
        cells: list[str] = [run.state or ""]
        for name in (*monitors, *columns):
            cells.append(f"{values[name]:.4f}" if name in values else "")
        cells.append(str(result.get("seconds", "")))
        table.add_row(Text(display_text(run.folder.name)), *cells)
    console.print(table)
    for run in ordered:
        if run.state == "failed":
            line = Text(display_text(f"{run.folder.name} failed: {run.error}"))
            console.print(line, highlight=False, soft_wrap=True)


def _order(run: Run, result: Mapping[str, Any]) -> tuple[str, float]:
    """Return a sort key: runs with the same metric from the best to the worst, others last."""
    for name, score in result.get("monitored", {}).items():
        try:
            mode = run.resolved.get("task", {}).get("monitor_mode")
        except ConfigurationError:
            mode = None
        return name, score if mode == "min" else -score
    return "~", 0.0


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
