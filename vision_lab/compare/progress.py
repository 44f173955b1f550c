"""How far runs are that are not finished yet."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from vision_lab.compare.runs import LeftOutRun
from vision_lab.core.errors import ConfigurationError
from vision_lab.run_folders.folder import Run

ACTIVE_STATES = ("pending", "running")


def describe_active(left_out: Sequence[LeftOutRun]) -> list[str]:
    """Describe the runs that are being trained, a line each.

    Args:
        left_out: runs that are not compared.
    """
    lines = []
    for item in left_out:
        with suppress(ConfigurationError):  # a damaged status, which is listed at the end
            if item.run.state in ACTIVE_STATES:
                lines.append(f"{item.run}: {_describe_epoch(item.run) or item.run.state}")
    return lines


def _describe_epoch(run: Run) -> str | None:
    """Return the last epoch of a run with its monitored metric; None before the first one."""
    try:
        last = run.read_rows("metrics.csv")[-1]
        config = run.resolved
        words = f"epoch {int(last['epoch']) + 1} of {config['trainer']['max_epochs']}"
        monitor = config["task"]["monitor"]
        return f"{words}, {monitor} {float(last[monitor]):.4f}" if last.get(monitor) else words
    except (ConfigurationError, OSError, LookupError, TypeError, ValueError):
        return None  # not written yet, or damaged
