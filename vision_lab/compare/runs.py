"""Runs to compare: found in folders, read from their files, left out with a reason.

What is read may come from others: it is data, and is never instantiated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from vision_lab.core.documents import DocumentError
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import expand_home
from vision_lab.core.text import first_line
from vision_lab.run_folders.folder import Run
from vision_lab.run_folders.naming import REPLACED
from vision_lab.run_folders.resume import flatten_keys, is_ignored

PAIRING_KEYS = ("seed", "data.fold")
"""Keys of which a difference makes no other group: runs with equal ones are compared in pairs."""

COSTS = ("seconds", "parameters", "flops", "images_per_second", "peak_memory")
"""What a run costs, as in ``result.json``."""


@dataclass(frozen=True)
class FinishedRun:
    """What is compared of a finished run.

    Attributes:
        run: the run.
        task: its choice of the group ``task``.
        choices: its choice of each group.
        config: its config by dotted key, without what does not change results.
        pairing: the values of ``PAIRING_KEYS``.
        monitor: the metric by which its best checkpoint was selected.
        monitor_mode: whether the best value of that metric is the largest ("max") or the smallest.
        metrics: that metric and all metrics on test images, by name.
        per_class: metrics by name, by class.
        costs: what the run costs; values that its version did not write are absent.
        data: fingerprints of its data by split.
        num_folds: number of folds of its cross-validation; None without.
        test_ratio: number of its test images per training image; None if it is unknown.
        commit: the commit of vision_lab that trained it; None if it is unknown.
    """

    run: Run
    task: str
    choices: Mapping[str, str | None]
    config: Mapping[str, Any]
    pairing: Mapping[str, Any]
    monitor: str
    monitor_mode: str
    metrics: Mapping[str, float]
    per_class: Mapping[str, Mapping[str, float]]
    costs: Mapping[str, float]
    data: Mapping[str, Any]
    num_folds: int | None = None
    test_ratio: float | None = None
    commit: str | None = None


class LeftOutRun(NamedTuple):
    """A run that is not compared.

    Attributes:
        run: the run.
        reason: why not.
    """

    run: Run
    reason: str


def list_patterns(runs: str | Sequence[str] | None) -> list[str]:
    """List the folders and patterns of the key ``runs``.

    Args:
        runs: a folder, several ones separated by commas, or a list.

    Raises:
        ConfigurationError: if there is none.
    """
    if not runs:
        raise ConfigurationError("type runs=<the folder of a sweep>, or runs=<folder>,<folder>")
    if not isinstance(runs, str):
        return [str(item) for item in runs]
    if expand_home(runs).exists():
        return [runs]
    return [item for item in runs.split(",") if item]


def find_runs(patterns: Sequence[str]) -> list[Run]:
    """Find the runs in folders.

    Args:
        patterns: folders of runs or of sweeps, or glob patterns of these.

    Raises:
        ConfigurationError: if there is none for a pattern.
    """
    found: dict[Path, Run] = {}
    for pattern in patterns:
        path = expand_home(pattern)
        folders = _expand(path)
        runs = [run for folder in folders for run in _list_runs(folder)]
        if not runs:
            what = "there is no run in it" if any(map(Path.exists, folders)) else "no such folder"
            raise ConfigurationError(
                f"runs={pattern}: {what}: type the folder of a sweep, folders of runs, or a "
                "pattern such as 'outputs/depths*'"
            )
        for run in runs:
            found.setdefault(run.folder.resolve(), run)
    return list(found.values())


def _expand(path: Path) -> list[Path]:
    """List the folders that match a pattern, which may be the name of a folder."""
    if path.exists() or not has_magic(str(path)):
        return [path]
    root = Path(path.anchor)
    return sorted(root.glob(str(path.relative_to(root))))


def _list_runs(folder: Path) -> list[Run]:
    """List the run in a folder, or those of the sweeps in it."""
    if _is_run(folder):
        return [Run(folder)]
    runs = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink() and path.name != REPLACED:
            runs += _list_runs(path)
    return runs


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("status.json", "config.yaml"))


def read_runs(runs: Sequence[Run]) -> tuple[list[FinishedRun], list[LeftOutRun]]:
    """Read what is compared of each run.

    Args:
        runs: the runs.

    Returns:
        The finished runs, and those that are left out.
    """
    finished, left_out = [], []
    for run in runs:
        try:
            read = _read_run(run)
        except (ConfigurationError, DocumentError, OSError) as error:
            read = LeftOutRun(run, first_line(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            read = LeftOutRun(run, f"its files are not those of a run ({first_line(error)})")
        if isinstance(read, LeftOutRun):
            left_out.append(read)
        else:
            finished.append(read)
    return finished, left_out


def _read_run(run: Run) -> FinishedRun | LeftOutRun:
    if run.state != "finished":
        return LeftOutRun(run, _describe_state(run))
    result = run.result
    if result is None:
        return LeftOutRun(run, "its result.json no longer exists")
    config = flatten_keys(run.config)
    choices = run.choices
    ((monitor, score),) = result["monitored"].items()
    metrics = {monitor: float(score)}
    for name, value in result["metrics"].items():
        metrics[name] = float(value)
    costs: dict[str, float] = {}
    for name in COSTS:
        if isinstance(result.get(name), int | float):
            costs[name] = float(result[name])
    speed = _median_speed(run)
    if speed is not None:
        costs["images_per_second"] = speed
    compared = {}
    for key, value in config.items():
        if not is_ignored(key) and key not in PAIRING_KEYS:
            compared[key] = value
    num_folds, fold = config.get("data.folds"), config.get("data.fold")
    has_folds = _is_whole(num_folds, 2) and _is_whole(fold, 0)
    if not has_folds and not (num_folds is None and fold is None):
        raise ValueError(f"data.folds={num_folds} data.fold={fold}")
    pairing = {}
    for key in PAIRING_KEYS:
        if config.get(key) is not None:
            pairing[key] = config[key]
    return FinishedRun(
        run=run,
        task=str(choices.get("task")),
        choices={group: choice for group, choice in choices.items() if not is_ignored(group)},
        config=compared,
        pairing=pairing,
        monitor=monitor,
        monitor_mode=str(run.resolved["task"]["monitor_mode"]),
        metrics=metrics,
        per_class=result["per_class"],
        costs=costs,
        data=run.data or {},
        num_folds=num_folds,
        test_ratio=_read_test_ratio(run),
        commit=_read_commit(run),
    )


def _describe_state(run: Run) -> str:
    state = run.state
    if state is None:
        return "it has not been started"
    if state == "failed":
        return f"failed: {run.error}"
    if state == "pruned":
        return "pruned by a search"
    return f"unfinished: {state}"


def _is_whole(value: Any, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def _read_test_ratio(run: Run) -> float | None:
    data = run.data or {}
    counts = [data.get(split, {}).get("count") for split in ("test", "train")]
    if not all(_is_whole(count, 1) for count in counts):
        return None
    return float(counts[0] / counts[1])


def _read_commit(run: Run) -> str | None:
    try:
        commit = run.environment.get("commit")
    except (ConfigurationError, AttributeError):  # a damaged file, which nothing depends on
        return None
    return commit if isinstance(commit, str) else None


def _median_speed(run: Run) -> float | None:
    """Return the median of the images per second of the epochs; None if there is no such file."""
    speeds = []
    for row in run.read_rows("speed.csv"):
        value = float(row["images_per_second"])
        if math.isfinite(value):
            speeds.append(value)
    return median(speeds) if speeds else None
