"""``mode=compare``: which of several runs is better, by how much, and at what cost.

Does not import torch.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from vision_lab.compare.comparison import Comparison, Direction, compare_runs
from vision_lab.compare.curves import find_damaged_curves
from vision_lab.compare.progress import describe_active
from vision_lab.compare.runs import find_runs, list_patterns, read_runs
from vision_lab.compare.samples import find_label_errors
from vision_lab.compare.tables import make_json, make_markdown, make_rows
from vision_lab.config.resolution import Config
from vision_lab.core import console
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import (
    delete_file,
    format_path,
    reject_link,
    write_csv,
    write_file,
    write_json,
)
from vision_lab.core.signals import Interrupted
from vision_lab.core.text import display_text
from vision_lab.modes import reports

MAX_GROUPS = 10
"""Number of groups whose curves are drawn."""

MAX_LISTED = 20
"""Maximum number of runs that are listed as left out or active."""

LABEL_ERRORS_FILENAME = "label_errors.csv"
PLOT_FILENAME = "compare.png"

FOLLOW_INTERVAL = 3.0
"""Seconds between two looks at the runs."""

REPORT_PACKAGES = ("scipy", "statsmodels", "pandas", "plotly", "jinja2")
"""Packages of the extra ``report``."""


def compare(
    config: Config,
    folder: Path,
    *,
    metric: str | None = None,
    metric_mode: Direction | None = None,
    by: Sequence[str] | None = None,
    baseline: str | None = None,
    follow: bool = False,
) -> None:
    """Compare runs, and write ``report.html``, ``compare.csv``, ``.md``, ``.json`` and ``.png``.

    Possible label errors are listed in ``label_errors.csv``; TensorBoard reads ``tensorboard/``.

    Args:
        config: the config; ``runs`` are the runs to compare.
        folder: the folder to write to.
        metric: the metric; None for the one by which checkpoints were selected.
        metric_mode: whether its best value is the largest ("max") or the smallest ("min").
        by: keys to group by; None for all in which the runs differ, except for seeds.
        baseline: the group to compare with, such as ``resnet18``; None for the best one.
        follow: whether to show the table, and how far the other runs are, until all have ended.

    Raises:
        ConfigurationError: if there is nothing to compare, or a setting is invalid.
    """
    reject_link(folder)
    patterns = list_patterns(config["runs"])
    make_comparison = partial(
        compare_runs,
        metric=metric,
        direction=metric_mode,
        by=by,
        baseline=baseline,
    )
    try:
        if follow:
            _follow(patterns, make_comparison)
        comparison = make_comparison(*read_runs(find_runs(patterns)))
        _report(comparison, folder, command=_describe_command(config, patterns))
    except ModuleNotFoundError as error:
        if error.name not in REPORT_PACKAGES:
            raise
        raise ConfigurationError(
            f"mode=compare requires the package {error.name}: type pip install 'vision_lab[report]'"
        ) from error


def _report(comparison: Comparison, folder: Path, *, command: str) -> None:
    """Write the files of a comparison, after all of them have been made, and print its table."""
    # These import Plotly and matplotlib.
    from vision_lab.compare.plot import draw_plot
    from vision_lab.compare.report import make_report
    from vision_lab.compare.tensorboard import write_groups

    rows = make_rows(comparison)
    warnings = find_damaged_curves([item.group for item in comparison.groups[:MAX_GROUPS]])
    label_errors, num_runs = find_label_errors(comparison)
    report = make_report(
        comparison,
        rows=rows,
        warnings=warnings,
        label_errors=(label_errors, num_runs),
        command=command,
    )
    markdown = make_markdown(comparison, command=command, plot=PLOT_FILENAME)
    plot = draw_plot(comparison)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder, "compare.csv", rows)
    write_file(folder, "compare.md", markdown)
    write_file(folder, PLOT_FILENAME, plot)
    write_json(folder, "compare.json", make_json(comparison))
    write_file(folder, "report.html", report)
    write_groups(comparison, folder)
    delete_file(folder, LABEL_ERRORS_FILENAME)
    if label_errors:
        write_csv(folder, LABEL_ERRORS_FILENAME, [vote.to_row(num_runs) for vote in label_errors])
    _print(comparison, rows, warnings)
    if label_errors:
        count = f"{len(label_errors)} images" if len(label_errors) > 1 else "1 image"
        console.print_line(f"{count} may have a wrong label: see label_errors.csv and report.html")
    console.print_line(f"written to {format_path(folder)}: open report.html in a browser")


def _follow(patterns: Sequence[str], make_comparison: Callable[..., Comparison]) -> None:
    """Show a comparison that is made again every few seconds, until no run is active, or Ctrl-C."""
    with suppress(KeyboardInterrupt, Interrupted), Live(auto_refresh=False) as live:
        while True:
            finished, left_out = read_runs(find_runs(patterns))
            active = describe_active(left_out)
            shown: list[RenderableType] = []
            if finished:
                comparison = make_comparison(finished, left_out)
                rows = make_rows(comparison)[:MAX_LISTED]
                shown.append(reports.make_table(_make_title(comparison), rows))
            shown += [Text(display_text(line)) for line in active[:MAX_LISTED]]
            live.update(Group(*shown), refresh=True)
            if not active:
                return
            time.sleep(FOLLOW_INTERVAL)


def _describe_command(config: Config, patterns: Sequence[str]) -> str:
    """Return the command, with paths relative to the working directory."""
    words = ["python", "-m", "vision_lab"]
    for word in config.overrides:
        if word.startswith("runs="):
            shown = [format_path(Path(pattern)) for pattern in patterns]
            word = "runs=" + (f"[{','.join(shown)}]" if len(shown) > 1 else shown[0])
        words.append(word)
    return shlex.join(words)


def _make_title(comparison: Comparison) -> str:
    better = "larger" if comparison.direction == "max" else "smaller"
    return f"{comparison.metric}, {better} is better"


def _print(
    comparison: Comparison,
    rows: Sequence[dict[str, str]],
    warnings: Sequence[str],
) -> None:
    reports.print_table(_make_title(comparison), rows)
    for text in (*comparison.warnings, *warnings):
        console.print_warning(text)
    for item in comparison.left_out[:MAX_LISTED]:
        console.print_line(f"left out: {item.run}: {item.reason}")
    if len(comparison.left_out) > MAX_LISTED:
        console.print_line(f"and {len(comparison.left_out) - MAX_LISTED} more, in compare.json")
