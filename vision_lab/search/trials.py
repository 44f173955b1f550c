"""The trials of a search, run one after another by each process that works on it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from optuna.trial import FrozenTrial

from vision_lab.core import console
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.text import display_text
from vision_lab.run_folders.folder import Run
from vision_lab.search.jobs import Job, JobRunner
from vision_lab.search.results import describe_trial, trial_name
from vision_lab.search.settings import RESULT_KEYS, SearchSettings
from vision_lab.search.study import SearchStudy

MAX_FAILURES = 3
"""Number of trials after which a search ends if all have failed."""


def run_search(runner: JobRunner, study: SearchStudy) -> None:
    """Run trials until the search is complete.

    Args:
        runner: the runner of jobs.
        study: the study.

    Raises:
        ConfigurationError: if the first trials have all failed.
    """
    batch_size = 1 if runner.is_local else study.settings.workers
    while True:
        with ExitStack() as claims:
            trials = _claim(study, claims, count=batch_size)
            if not trials:
                return
            jobs = [_make_job(runner, study, trial) for trial in trials]
            runner.run(jobs)
            for trial, job in zip(trials, jobs, strict=True):
                _record(study, trial, job.run)
                console.print_line(describe_trial(study, trial.number))
        _check_failures(study)


def _claim(
    study: SearchStudy,
    claims: ExitStack,
    *,
    count: int,
) -> list[FrozenTrial]:
    """Reserve at most a number of trials for this process, until the claims are closed."""
    trials = []
    for _ in range(count):
        trial = claims.enter_context(study.claim_trial())
        if trial is None:
            break
        trials.append(trial)
    return trials


def _make_job(
    runner: JobRunner,
    study: SearchStudy,
    trial: FrozenTrial,
) -> Job:
    overrides = [*study.space.overrides(trial.params), f"search.trial={trial.number}"]
    return runner.make_job(trial.number, trial_name(trial), overrides)


def _record(
    study: SearchStudy,
    trial: FrozenTrial,
    run: Run,
) -> None:
    """Record how a trial has ended.

    Raises:
        ConfigurationError: if another process works on it, or it was interrupted elsewhere.
    """
    state = run.state
    if state == "finished":
        try:
            study.finish(trial, read_values(run, study.settings))
        except ConfigurationError as error:
            study.fail(trial, str(error))
    elif state == "pruned":
        study.prune(trial)
    elif state == "failed" and not run.is_interrupted:
        study.fail(trial, run.error)
    else:
        raise ConfigurationError(f"{run} was interrupted: repeat the command to continue")


def read_values(run: Run, settings: SearchSettings) -> list[float]:
    """Read the metrics of a finished trial, at the epoch of its best checkpoint.

    Args:
        run: the run.
        settings: the settings of the search.

    Raises:
        ConfigurationError: if the run has no such metric.
    """
    result = run.result
    assert result is not None
    return [_read_value(run, result, metric) for metric in settings.metrics]


def _read_value(
    run: Run,
    result: Mapping[str, Any],
    metric: str,
) -> float:
    if metric in result["monitored"]:
        return float(result["monitored"][metric])
    if metric in RESULT_KEYS:
        return float(result[metric])
    ((monitor, score),) = result["monitored"].items()
    rows = [row for row in run.read_rows("metrics.csv") if row.get(monitor)]
    known = sorted(name for name in rows[0] if "/" in name) if rows else []
    if metric not in known:
        raise ConfigurationError(
            f"search.metric={metric}: no epoch has reported it: type one of "
            f"{', '.join([*known, *RESULT_KEYS])}"
        )
    best = min(rows, key=lambda row: abs(float(row[monitor]) - score))
    return float(best[metric])


def _check_failures(study: SearchStudy) -> None:
    """End the search if nothing but failures has come of it."""
    trials = study.trials
    failed = [trial for trial in trials if trial.state.name == "FAIL"]
    if len(failed) == len(trials) >= min(MAX_FAILURES, study.total):
        error = display_text(str(failed[-1].user_attrs.get("error", "")))
        raise ConfigurationError(
            f"all {len(failed)} trials have failed, the last one with: {error}\n"
            "Correct the command, and type another name="
        )
