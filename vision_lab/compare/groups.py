"""Groups of runs that differ in nothing but their seeds and folds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from vision_lab.compare.runs import FinishedRun
from vision_lab.core.errors import ConfigurationError

ABSENT = "-"
"""Shown for a key that only other groups have."""

EVERYTHING = "all runs"
"""Name of the only group."""


@dataclass(frozen=True)
class Group:
    """Runs with the same settings.

    Attributes:
        settings: the values of the keys in which groups differ, as text.
        runs: the runs.
    """

    settings: Mapping[str, str]
    runs: tuple[FinishedRun, ...]

    @property
    def name(self) -> str:
        """The settings in one line."""
        return " ".join(f"{key}={value}" for key, value in self.settings.items()) or EVERYTHING

    @property
    def short_name(self) -> str:
        """The settings by the last words of their keys, if these differ."""
        words = [key.rpartition(".")[2] for key in self.settings]
        if len(set(words)) < len(words):
            return self.name
        pairs = zip(words, self.settings.values(), strict=True)
        return " ".join(f"{word}={value}" for word, value in pairs) or EVERYTHING

    @property
    def num_folds(self) -> int | None:
        """The number of folds of cross-validation, the smallest one; None without."""
        return min((run.num_folds for run in self.runs if run.num_folds), default=None)

    @property
    def overlap(self) -> float | None:
        """The number of test images per training image of folds; None without folds."""
        if self.num_folds is None:
            return None
        ratios = [run.test_ratio for run in self.runs if run.test_ratio is not None]
        return fmean(ratios) if ratios else 1 / (self.num_folds - 1)

    def values(self, metric: str) -> dict[tuple[str, ...], float]:
        """Return the value of a metric in each run that has it, by what runs are paired by.

        With folds, it is the mean over the runs of each fold: other seeds test on the same images,
        and are no further evidence.

        Args:
            metric: name of the metric.

        Raises:
            ConfigurationError: if two runs would be the same one of a pair.
        """
        values: dict[tuple[str, ...], float] = {}
        for run in self.runs:
            if metric not in run.metrics:
                continue
            pair = tuple(map(str, run.pairing.values()))
            if pair in values:
                shown = " ".join(f"{key}={value}" for key, value in run.pairing.items())
                raise ConfigurationError(
                    f"{self.name}: several runs have {shown}, such as {run.run}: leave out all but "
                    "one of them, or group by what else differs (mode.by=null)"
                )
            values[pair] = run.metrics[metric]
        return values if self.num_folds is None else self._average_folds(metric)

    def _average_folds(self, metric: str) -> dict[tuple[str, ...], float]:
        by_fold: dict[tuple[str, ...], list[float]] = {}
        for run in self.runs:
            if metric in run.metrics:
                fold = (str(run.pairing.get("data.fold")),)
                by_fold.setdefault(fold, []).append(run.metrics[metric])
        return {fold: fmean(found) for fold, found in by_fold.items()}


def group_runs(runs: Sequence[FinishedRun], *, by: Sequence[str] | None = None) -> list[Group]:
    """Group runs by everything in which they differ, except for their seeds and folds.

    Args:
        runs: the runs.
        by: keys and groups to group by instead; runs are then paired by the others.

    Raises:
        ConfigurationError: if runs do not differ in one of ``by``.
    """
    differing = find_differing_keys(runs)
    if by is not None:
        for key in by:
            if key not in differing:
                known = f"type some of {', '.join(differing)}" if differing else "type mode.by=null"
                raise ConfigurationError(f"mode.by={key}: the runs do not differ in it: {known}")
    keys = list(differing) if by is None else list(by)
    others = [key for key in differing if key not in keys]
    members: dict[tuple[str, ...], list[FinishedRun]] = {}
    for index, run in enumerate(runs):
        pairing = {**run.pairing, **{key: differing[key][index] for key in others}}
        identity = tuple(differing[key][index] for key in keys)
        members.setdefault(identity, []).append(replace(run, pairing=pairing))
    groups = []
    for identity, found in members.items():
        groups.append(Group(dict(zip(keys, identity, strict=True)), tuple(found)))
    return groups


def find_differing_keys(runs: Sequence[FinishedRun]) -> dict[str, list[str]]:
    """Find the choices and keys in which runs differ.

    A key that is a consequence of another choice, such as ``model.network.depth`` of one model and
    another, is left out.

    Args:
        runs: the runs.

    Returns:
        For each key, its value in each run, as text.
    """
    differing: dict[str, list[str]] = {}
    for key in _list_keys([run.choices for run in runs]):
        values = [str(run.choices.get(key)) for run in runs]
        if len(set(values)) > 1:
            differing[key] = values
    for key in _list_keys([run.config for run in runs]):
        values = [_format_value(run.config.get(key, ABSENT)) for run in runs]
        choices = differing.get(key.partition(".")[0])
        if len(set(values)) > 1 and not (choices and _is_function(choices, values)):
            differing[key] = values
    return _drop_consequences(differing)


def _list_keys(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    keys: dict[str, None] = {}
    for mapping in mappings:
        keys |= dict.fromkeys(mapping)
    return list(keys)


def _is_function(causes: Sequence[str], values: Sequence[str]) -> bool:
    """Return whether equal causes have equal values."""
    known: dict[str, str] = {}
    return all(
        known.setdefault(cause, value) == value for cause, value in zip(causes, values, strict=True)
    )


def _drop_consequences(differing: dict[str, list[str]]) -> dict[str, list[str]]:
    """Drop keys whose values follow from the choice of a group, such as that of an experiment."""
    kept = {}
    choices = [values for key, values in differing.items() if "." not in key]
    for key, values in differing.items():
        if "." in key and any(_is_function(choice, values) for choice in choices):
            continue
        kept[key] = values
    return kept


def _format_value(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str)
