"""Results of a search: a line for each trial, a table, ``search.json``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
        for metric, value in zip(study.settings.metrics, _values(trial), strict=False)
    ]
    words += [f"{key}={format_value(value)}" for key, value in trial.params.items()]
    best = find_best(study)
    if best and len(best) == 1:
        words.append(f"best {_values(best[0])[0]:.4g} ({trial_name(best[0])})")
    return "  ".join(words)


def print_search(study: SearchStudy) -> int:
    """Print the table of a search and write ``search.json``.

    Args:
        study: the study.

    Returns:
        The exit code: 1 if a trial has failed, or if the search is not complete, else 0.
    """
    trials = study.trials
    if not trials:
        return 1
    rows = _sort(trials, study)
    table = Table(
        title=Text(f"{format_path(study.folder)}: {_count_states(trials)}"), title_justify="left"
    )
    table.add_column("trial", no_wrap=True)
    table.add_column("state")
    keys = shorten_keys(list(study.space.distributions))
    for name in (*study.settings.metrics, "epochs", "seconds", *keys):
        table.add_column(name, overflow="fold")
    for trial in rows[:MAX_ROWS]:
        table.add_row(*_cells(study, trial))
    get_console().print(table)
    if len(rows) > MAX_ROWS:
        console.print_line(f"and {len(rows) - MAX_ROWS} more, in {RESULTS_FILENAME}")
    for trial in rows:
        if trial.state == TrialState.FAIL:
            error = display_text(str(trial.user_attrs.get(ERROR_KEY, "")))
            console.print_line(f"{trial_name(trial)} failed: {error}")
    best = find_best(study)
    write_json(study.folder, RESULTS_FILENAME, _summarize(study, best))
    if best:
        console.print_line(
            f"to train the best one with other seeds: {repeat_command(study, best[0])}"
        )
    counted = [trial for trial in trials if REPEATS_KEY not in trial.user_attrs]
    is_complete = len(counted) >= study.total and all(t.state.is_finished() for t in trials)
    return int(not is_complete or any(trial.state == TrialState.FAIL for trial in trials))


def repeat_command(study: SearchStudy, trial: FrozenTrial) -> str:
    """Return the command that trains with the values of a trial and other seeds.

    Args:
        study: the study.
        trial: the trial.
    """
    left_out = ("search", "hydra", "name=", "seed=")
    words = []
    for word in study.space.overrides(trial.params):
        if not word.startswith(left_out):
            words.append(shlex.quote(word))
    name = f"name={study.folder.name}-best"
    return " ".join(["python -m vision_lab -m", *words, "seed=1,2,3", shlex.quote(name)])


def shorten_keys(keys: Sequence[str]) -> list[str]:
    """Return the last part of each key, or the whole key if another one has the same last part."""
    parts = [key.rpartition(".")[2] for key in keys]
    return [part if parts.count(part) == 1 else key for key, part in zip(keys, parts, strict=True)]


def format_value(value: Any) -> str:
    """Return a value of a trial in a few digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _summarize(study: SearchStudy, best: Sequence[FrozenTrial]) -> dict[str, Any]:
    trials = []
    for trial in study.trials:
        trials.append(
            {
                "trial": trial_name(trial),
                "state": STATE_NAMES[trial.state],
                "values": dict(zip(study.settings.metrics, _values(trial), strict=False)),
                "params": trial.params,
                "epochs": len(trial.intermediate_values),
                **({"error": trial.user_attrs[ERROR_KEY]} if ERROR_KEY in trial.user_attrs else {}),
            }
        )
    return {
        "metrics": dict(zip(study.settings.metrics, study.settings.directions, strict=True)),
        "best": [trial_name(trial) for trial in best],
        "command": repeat_command(study, best[0]) if best else None,
        "space": study.space.texts,
        "trials": trials,
    }


def _cells(study: SearchStudy, trial: FrozenTrial) -> list[Text]:
    values = [f"{value:.4f}" for value in _values(trial)]
    values += [""] * (len(study.settings.metrics) - len(values))
    run = Run(study.folder / trial_name(trial))
    result = run.result or {} if trial.state == TrialState.COMPLETE else {}
    cells = [trial_name(trial), STATE_NAMES[trial.state], *values]
    cells += [
        str(result.get("epochs", len(trial.intermediate_values) or "")),
        str(result.get("seconds", "")),
    ]
    cells += [format_value(trial.params.get(key, "")) for key in study.space.distributions]
    return [Text(display_text(cell)) for cell in cells]


def _sort(trials: Sequence[FrozenTrial], study: SearchStudy) -> list[FrozenTrial]:
    """Sort trials: finished ones from the best to the worst, then the others."""
    sign = -1 if study.settings.directions[0] == "max" else 1

    def key(trial: FrozenTrial) -> tuple[int, float, int]:
        order = (
            [TrialState.COMPLETE, TrialState.PRUNED].index(trial.state)
            if trial.state
            in (
                TrialState.COMPLETE,
                TrialState.PRUNED,
            )
            else 2
        )
        values = _values(trial)
        return order, sign * values[0] if values else 0.0, trial.number

    return sorted(trials, key=key)


def _values(trial: FrozenTrial) -> list[float]:
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


def results_path(folder: Path) -> Path:
    """Return the path of ``search.json``."""
    return folder / RESULTS_FILENAME
