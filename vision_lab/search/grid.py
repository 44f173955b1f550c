"""All combinations of the given values (``-m`` without ``search=``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from vision_lab.core import console
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.text import display_text
from vision_lab.run_folders.folder import Run
from vision_lab.run_folders.naming import safe_dir_name
from vision_lab.run_folders.resume import is_ignored
from vision_lab.search.claims import acquire_claim
from vision_lab.search.jobs import Job, JobRunner
from vision_lab.search.settings import SweepSettings

SHOWN_STATES = ("finished", "failed", "running", "pending")
"""States of runs, in the order in which they are counted for the user."""


def list_jobs(runner: JobRunner, arguments: Sequence[str]) -> list[Job]:
    """List the jobs of a command, in Hydra's order.

    A folder is named by the values that are varied; if none is, by all that are given. A run that
    an earlier command has named otherwise keeps its folder.

    Args:
        runner: the runner of the jobs.
        arguments: the overrides of the command line.

    Raises:
        ConfigurationError: if a value is an interval.
    """
    values: dict[str, list[str]] = {}
    varied, typed = [], []
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        key = override.get_key_element()
        if override.is_interval_sweep():
            raise ConfigurationError(
                f"{override.input_line}: an interval is for a search: type search=tpe, or values "
                "separated by commas"
            )
        if override.is_sweep_override():
            varied.append(key)
            values[key] = list(override.sweep_string_iterator())
        else:
            values[key] = [str(override.get_value_element_as_str())]
            if not is_ignored(key) and not key.startswith(("hydra", "search")):
                typed.append(key)
    named = varied or typed
    existing = _find_existing(runner.folder)
    jobs = []
    for number, combination in enumerate(product(*values.values())):
        words = dict(zip(values, combination, strict=True))
        name = "_".join(f"{key.lstrip('+~')}-{words[key]}" for key in sorted(named))
        overrides = [f"{key}={value}" for key, value in words.items()]
        folder = existing.get(_comparable(overrides)) or safe_dir_name(name, f"job-{number}")
        jobs.append(runner.make_job(number, folder, overrides))
    return jobs


def _find_existing(folder: Path) -> dict[frozenset[str], str]:
    """Return the name of each run in the folder of a sweep, by its overrides."""
    names = {}
    for path in sorted(folder.glob("*/overrides.yaml")):
        run = Run(path.parent)
        with suppress(ConfigurationError):  # a damaged file
            names[_comparable(run.overrides)] = path.parent.name
    return names


def _comparable(overrides: Sequence[str]) -> frozenset[str]:
    """Return the overrides on which a run depends."""
    kept = []
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if not is_ignored(key) and not key.startswith("hydra"):
            kept.append(override)
    return frozenset(kept)


def run_grid(
    runner: JobRunner,
    jobs: Sequence[Job],
    settings: SweepSettings,
) -> None:
    """Run the jobs that no other process is running, and that have not failed before.

    Args:
        runner: the runner of the jobs.
        jobs: all jobs of the sweep.
        settings: the group ``search``.
    """
    if not runner.is_local:
        waiting = [job for job in jobs if not _is_left_out(job.run, settings)]
        if waiting:
            runner.run(waiting)
        return
    for job in jobs:
        claim = acquire_claim(runner.folder, job.run.folder.name)
        if claim is None:
            continue
        try:
            if not _is_left_out(job.run, settings):
                runner.run([job])
        finally:
            claim.release()


def describe_progress(jobs: Sequence[Job]) -> str:
    """Describe in one line how many runs have ended.

    Args:
        jobs: all jobs of the sweep.
    """
    counts: Counter[str] = Counter()
    for job in jobs:
        with suppress(ConfigurationError):  # a damaged file
            counts[job.run.state or "pending"] += 1
    parts = [f"{counts[state]} {state}" for state in SHOWN_STATES if counts[state]]
    return f"{len(jobs)} runs: {', '.join(parts)}"


def _is_left_out(run: Run, settings: SweepSettings) -> bool:
    """Return whether a run has failed before and is not to be repeated, and say so."""
    with suppress(ConfigurationError):  # a damaged file, which the run itself will report
        if run.state == "failed" and not run.is_interrupted and not settings.retry:
            error = display_text(run.error)
            console.print_line(
                f"{run} has failed: {error}; to repeat it, type search.retry=1, or force=true"
            )
            return True
    return False
