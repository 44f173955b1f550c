"""Results of a search: a line for each trial, a table, ``search.json``."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from rich import get_console
from rich.table import Table
from rich.text import Text

from vision_lab.core import console
from vision_lab.core.files import format_path, write_json
from vision_lab.core.text import display_text
from vision_lab.run_folders.folder import Run
from vision_lab.search.study import ERROR_KEY, REPEATS_KEY, SearchStudy

RESULTS_FILENAME = "search.json"

STATE_NAMES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "pending",
}

STATE_RANKS = {TrialState.COMPLETE: 0, TrialState.PRUNED: 1}
"""Order of the states in the table; others come last."""

MIN_TRIALS = 4
"""Minimum number of finished trials for importances."""

PLAIN_PATH = re.compile(r"(?<==)'([\w./~-]+)'$")
"""A quoted path that needs no quotes."""

MAX_ROWS = 40
"""Maximum number of trials in the table."""


def trial_name(trial: FrozenTrial) -> str:
    """Return the name of a trial's folder."""
    return f"trial-{trial.number:03}"


def find_best(study: SearchStudy) -> list[FrozenTrial]:
    """Return the best finished trial, or the Pareto front if there are two metrics."""
    finished = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    if not finished:
        return []
    if len(study.settings.metrics) > 1:
        return list(study.study.best_trials)
    return [_sort(finished, study)[0]]


def describe_trial(study: SearchStudy, number: int) -> str:
    """Describe in one line how a trial has ended, and which one is the best so far.

    Args:
        study: the study.
        number: number of the trial.
    """
    trial = study.trials[number]
    words = [f"trial {number + 1}/{study.total}", STATE_NAMES[trial.state]]
    if trial.state == TrialState.PRUNED:
        words.append(f"after {len(trial.intermediate_values)} epochs")
    words += [
        f"{metric} {value:.4g}"
        for metric, value in zip(study.settings.metrics, trial_values(trial), strict=False)
    ]
    words += [f"{key}={format_value(value)}" for key, value in trial.params.items()]
    best = find_best(study)
    if best and len(best) == 1:
        words.append(f"best {trial_values(best[0])[0]:.4g} ({trial_name(best[0])})")
    return "  ".join(words)


def describe_progress(study: SearchStudy) -> str:
    """Describe in one line how many trials have ended, and which one is the best so far.

    Args:
        study: the study.
    """
    counts = Counter(STATE_NAMES[trial.state] for trial in study.trials)
    parts = [f"{count} {state}" for state, count in counts.items()]
    words = f"{study.total} trials: {', '.join(parts)}" if parts else f"{study.total} trials"
    best = find_best(study)
    if len(best) == 1:
        value = trial_values(best[0])[0]
        words += f"; best so far: {study.settings.metrics[0]} {value:.4g} ({trial_name(best[0])})"
    return words


def print_search(study: SearchStudy, *, flags: Sequence[str] = ()) -> int:
    """Print the table of a search and write ``search.json``.

    Args:
        study: the study.
        flags: the flags of the command, without ``-m``.

    Returns:
        The exit code: 1 if a trial has failed, or if the search is not complete, else 0.
    """
    trials = study.trials
    if not trials:
        return 1
    rows = _sort(trials, study)
    get_console().print(_make_table(study, rows[:MAX_ROWS]))
    if len(rows) > MAX_ROWS:
        console.print_line(f"and {len(rows) - MAX_ROWS} more, in {RESULTS_FILENAME}")
    for trial in rows:
        if trial.state == TrialState.FAIL:
            error = display_text(str(trial.user_attrs.get(ERROR_KEY, "")))
            console.print_line(f"{trial_name(trial)} failed: {error}")
    best = find_best(study)
    importances = find_importances(study)
    if importances:
        parts = [f"{key} {value:.2f}" for key, value in importances.items()]
        console.print_line(f"importance: {', '.join(parts)}")
    command = repeat_command(study, best[0], flags=flags) if best else None
    write_json(study.folder, RESULTS_FILENAME, {**_summarize(study, best), "command": command})
    if command:
        console.print_line(f"to train the best one with other seeds: {command}")
    counted = [trial for trial in trials if REPEATS_KEY not in trial.user_attrs]
    is_complete = len(counted) >= study.total and all(t.state.is_finished() for t in trials)
    return int(not is_complete or any(trial.state == TrialState.FAIL for trial in trials))


def find_importances(study: SearchStudy) -> dict[str, float]:
    """Return how much of the differences between trials each option explains (Watanabe 2023).

    Args:
        study: the study.

    Returns:
        Importances by key, whose sum is 1, from the largest to the smallest; empty if there are too
        few trials, two metrics, or no differences.
    """
    finished = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    if len(finished) < MIN_TRIALS or len(study.settings.metrics) > 1:
        return {}
    try:
        return get_param_importances(study.study, evaluator=PedAnovaImportanceEvaluator())
    except (ValueError, RuntimeError):
        return {}


def repeat_command(
    study: SearchStudy,
    trial: FrozenTrial,
    *,
    flags: Sequence[str] = (),
) -> str:
    """Return the command that trains with the values of a trial and other seeds.

    Args:
        study: the study.
        trial: the trial.
        flags: the flags of the command, without ``-m``.
    """
    left_out = ("search", "hydra", "name=", "seed=")
    words = []
    for word in study.space.overrides(trial.params):
        if not word.startswith(left_out):
            words.append(PLAIN_PATH.sub(r"\1", word))
    if not any(word.startswith("search=") for word in study.space.fixed):
        words.append("search=none")  # an experiment has chosen a search
    words += ["seed=1,2,3", f"name={study.folder.name}-best"]
    return " ".join(["python -m vision_lab -m", *map(shlex.quote, [*flags, *words])])


def shorten_keys(keys: Sequence[str]) -> list[str]:
    """Return the last part of each key, or the whole key if another one has the same last part."""
    parts = [key.rpartition(".")[2] for key in keys]
    return [part if parts.count(part) == 1 else key for key, part in zip(keys, parts, strict=True)]


def format_value(value: Any) -> str:
    """Return a value of a trial, with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _summarize(study: SearchStudy, best: Sequence[FrozenTrial]) -> dict[str, Any]:
    trials = []
    for trial in study.trials:
        trials.append(
            {
                "trial": trial_name(trial),
                "state": STATE_NAMES[trial.state],
                "values": dict(zip(study.settings.metrics, trial_values(trial), strict=False)),
                "params": trial.params,
                "epochs": len(trial.intermediate_values),
                **({"error": trial.user_attrs[ERROR_KEY]} if ERROR_KEY in trial.user_attrs else {}),
            }
        )
    return {
        "metrics": dict(zip(study.settings.metrics, study.settings.directions, strict=True)),
        "best": [trial_name(trial) for trial in best],
        "importances": find_importances(study),
        "space": study.space.texts,
        "trials": trials,
    }


def _make_table(study: SearchStudy, trials: Sequence[FrozenTrial]) -> Table:
    """Return a table with a row for each trial, without times if it would be too wide."""
    columns: dict[str, list[str]] = {
        "trial": [trial_name(trial) for trial in trials],
        "state": [STATE_NAMES[trial.state] for trial in trials],
    }
    for index, metric in enumerate(study.settings.metrics):
        values = [trial_values(trial) for trial in trials]
        columns[metric] = [f"{row[index]:.4f}" if len(row) > index else "" for row in values]
    columns["epochs"] = [str(len(trial.intermediate_values) or "") for trial in trials]
    columns["seconds"] = [_read_seconds(study, trial) for trial in trials]
    keys = list(study.space.distributions)
    for key, name in zip(keys, shorten_keys(keys), strict=True):
        columns[name] = [format_value(trial.params.get(key, "")) for trial in trials]
    for name in ("seconds", "epochs"):
        if sum(len(column) + 3 for column in columns) + 1 > get_console().width:
            del columns[name]
    title = Text(f"{format_path(study.folder)}: {_count_states(study.trials)}")
    table = Table(title=title, title_justify="left")
    for name, cells in columns.items():
        table.add_column(Text(display_text(name)), min_width=max(map(len, cells)), overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*(Text(display_text(cell)) for cell in row))
    return table


def _read_seconds(study: SearchStudy, trial: FrozenTrial) -> str:
    if trial.state != TrialState.COMPLETE:
        return ""
    result = Run(study.folder / trial_name(trial)).result or {}
    return str(result.get("seconds", ""))


def _sort(trials: Sequence[FrozenTrial], study: SearchStudy) -> list[FrozenTrial]:
    """Sort trials by state, and those of the same state from the best to the worst."""
    sign = -1 if study.settings.directions[0] == "max" else 1

    def key(trial: FrozenTrial) -> tuple[int, float, int]:
        values = trial_values(trial)
        rank = STATE_RANKS.get(trial.state, len(STATE_RANKS))
        return rank, sign * values[0] if values else 0.0, trial.number

    return sorted(trials, key=key)


def trial_values(trial: FrozenTrial) -> list[float]:
    """Return the metrics of a trial: the last one that a pruned trial has reported."""
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        return [trial.intermediate_values[max(trial.intermediate_values)]]
    return list(trial.values or ())


def _count_states(trials: Sequence[FrozenTrial]) -> str:
    counts: dict[str, int] = {}
    for trial in trials:
        name = STATE_NAMES[trial.state]
        counts[name] = counts.get(name, 0) + 1
    return f"{len(trials)} trials: " + ", ".join(
        f"{count} {name}" for name, count in counts.items()
    )
