"""The comparison of groups of runs: their order, differences and what these mean, in words."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vision_lab.compare.groups import Group, group_runs
from vision_lab.compare.runs import FinishedRun, LeftOutRun
from vision_lab.compare.statistics import (
    Difference,
    Summary,
    compare,
    estimate_seeds,
    find_significant,
    summarize,
)
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.text import summarize_names

LOWER_IS_BETTER = {"loss", "calibration_error", "fid", "kid", "error"}
"""Last words of the names of metrics whose best value is the smallest."""

Direction = Literal["max", "min"]


@dataclass(frozen=True)
class ComparedGroup:
    """A group in a comparison.

    Attributes:
        group: the group.
        summary: the compared metric over its runs.
        difference: its difference from the reference; None for the reference itself.
        verdict: what the difference means, in words.
    """

    group: Group
    summary: Summary
    difference: Difference | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Groups of runs, the best one first.

    Attributes:
        task: the task of all runs.
        metric: the metric that is compared.
        direction: whether its best value is the largest or the smallest.
        groups: the groups.
        reference: the group from which differences are taken: the best one, or ``mode.baseline``.
        left_out: runs that are not compared.
        warnings: what makes the comparison unfair.
    """

    task: str
    metric: str
    direction: Direction
    groups: tuple[ComparedGroup, ...]
    reference: Group
    left_out: tuple[LeftOutRun, ...]
    warnings: tuple[str, ...]


def compare_runs(
    runs: Sequence[FinishedRun],
    left_out: Sequence[LeftOutRun],
    *,
    metric: str | None = None,
    direction: Direction | None = None,
    by: Sequence[str] | None = None,
    baseline: str | None = None,
) -> Comparison:
    """Compare runs.

    Args:
        runs: finished runs of one task.
        left_out: runs that are not compared.
        metric: the metric; None for the one by which all of them selected their checkpoints.
        direction: whether its best value is the largest ("max") or the smallest ("min"); None for
            that of the runs, or of the metric's name.
        by: keys to group by; None for all in which runs differ.
        baseline: the group to compare with: its name, or a value that no other one has; None for
            the best one.

    Raises:
        ConfigurationError: if there is nothing to compare, or runs have no common task or metric.
    """
    if not runs:
        reasons = summarize_names([f"{item.run}: {item.reason}" for item in left_out], 5)
        raise ConfigurationError(f"runs= contains no finished run: {reasons}")
    task = _find_task(runs)
    metric = metric or _find_metric(runs)
    known = {name for run in runs for name in run.metrics}
    if metric not in known:
        names = ", ".join(sorted(known))
        raise ConfigurationError(f"mode.metric={metric}: no run has it: type one of {names}")
    direction = direction or _find_direction(runs, metric)
    sign = 1 if direction == "max" else -1
    summaries: list[tuple[Group, Summary]] = []
    for group in group_runs(runs, by=by):
        values = list(group.values(metric).values())
        summaries.append((group, summarize(values, overlap=group.overlap)))
    summaries.sort(key=lambda item: _order(item[1], sign))
    reference = _find_reference([group for group, _ in summaries], baseline)
    return Comparison(
        task=task,
        metric=metric,
        direction=direction,
        groups=tuple(
            _compare_groups(
                summaries,
                reference,
                metric=metric,
                sign=sign,
                reference_verdict="baseline" if baseline else "best",
            )
        ),
        reference=reference,
        left_out=tuple(left_out),
        warnings=tuple(_find_warnings(runs)),
    )


def _compare_groups(
    summaries: Sequence[tuple[Group, Summary]],
    reference: Group,
    *,
    metric: str,
    sign: int,
    reference_verdict: str,
) -> list[ComparedGroup]:
    """Compare each group with the reference, and say which differences are significant."""
    others = [group for group, _ in summaries if group is not reference]
    reference_values = reference.values(metric)
    differences = []
    for group in others:
        values = group.values(metric)
        differences.append(
            compare(values, reference_values, overlap=group.overlap or reference.overlap)
        )
    found: dict[str, tuple[Difference | None, str]] = {
        reference.name: (None, reference_verdict),
    }
    significant = find_significant(differences)
    for group, difference, is_significant in zip(others, differences, significant, strict=True):
        verdict = describe_difference(
            difference,
            sign,
            is_significant=is_significant,
            num_folds=group.num_folds,
        )
        found[group.name] = (difference, verdict)
    return [ComparedGroup(group, summary, *found[group.name]) for group, summary in summaries]


def _find_task(runs: Sequence[FinishedRun]) -> str:
    examples: dict[str, FinishedRun] = {}
    for run in runs:
        examples.setdefault(run.task, run)
    if len(examples) > 1:
        lines = [f"  task={task}: {run.run}" for task, run in examples.items()]
        raise ConfigurationError(
            "\n".join(["runs= contains several tasks, which have no common metric:", *lines])
            + "\nType the runs of one of them"
        )
    return next(iter(examples))


def _find_metric(runs: Sequence[FinishedRun]) -> str:
    monitors = sorted({run.monitor for run in runs})
    if len(monitors) > 1:
        common = set.intersection(*(set(run.metrics) for run in runs))
        raise ConfigurationError(
            f"the runs have selected their checkpoints by several metrics ({', '.join(monitors)}): "
            f"type mode.metric={' or '.join(sorted(common)) or '...'}"
        )
    return monitors[0]


def _find_direction(runs: Sequence[FinishedRun], metric: str) -> Direction:
    for run in runs:
        if run.monitor == metric:
            return "min" if run.monitor_mode == "min" else "max"
    return "min" if metric.rpartition("/")[2] in LOWER_IS_BETTER else "max"


def _order(summary: Summary, sign: int) -> tuple[bool, float]:
    return (summary.size == 0, -sign * summary.mean if summary.size else 0.0)


def _find_reference(groups: Sequence[Group], baseline: str | None) -> Group:
    if baseline is None:
        return groups[0]
    found = [group for group in groups if baseline in (group.name, *group.settings.values())]
    if len(found) != 1:
        what = "no group" if not found else "several groups"
        names = "\n".join(f"  mode.baseline={_quote_group(group)}" for group in groups)
        raise ConfigurationError(f"mode.baseline={baseline} is {what}: type one of\n{names}")
    return found[0]


def _quote_group(group: Group) -> str:
    """Return what names a group on the command line."""
    if len(group.settings) == 1:
        return next(iter(group.settings.values()))
    return shlex.quote(group.name)


def describe_difference(
    difference: Difference,
    sign: int,
    *,
    is_significant: bool,
    num_folds: int | None = None,
) -> str:
    """Describe in words what a difference from the reference means.

    Args:
        difference: the difference.
        sign: 1 if larger values of the metric are better, else -1.
        is_significant: whether it is significant among all comparisons.
        num_folds: number of folds of cross-validation; None without.
    """
    if difference.p_value is None:
        if difference.size == 0:
            return "unknown: no finite value"
        return "unknown with 1 seed" if num_folds is None else "unknown with 1 fold"
    if is_significant:
        return "better" if sign * difference.mean > 0 else "worse"
    if difference.mean == 0 and difference.effect is None:
        return "equal"
    if num_folds is not None:
        return f"undecided with {difference.size} runs of {num_folds} folds"
    needed = estimate_seeds(difference)
    more = f"; about {needed} may decide" if needed else ""
    return f"undecided with {difference.size} seeds{more}"


def _find_warnings(runs: Sequence[FinishedRun]) -> list[str]:
    warnings = []
    commits: dict[str, FinishedRun] = {}
    for run in runs:
        if run.commit is not None:
            commits.setdefault(run.commit, run)
    if len(commits) > 1:
        examples = [f"{commit[:12]} ({run.run})" for commit, run in commits.items()]
        warnings.append(
            f"the runs are of {len(commits)} commits of vision_lab: {summarize_names(examples, 3)}"
        )
    folds = {run.num_folds for run in runs}
    if len(folds) > 1:
        warnings.append(
            "some of the runs test on folds and others do not, or on other ones, so their metrics "
            "are of different images: "
            + ", ".join(sorted(f"data.folds={number}" for number in folds))
        )
    for split in ("test", "val"):
        by_fold: dict[Any, dict[str, FinishedRun]] = {}  # the first run with each fingerprint
        for run in runs:
            if split in run.data:
                found = by_fold.setdefault(run.pairing.get("data.fold"), {})
                found.setdefault(str(run.data[split]), run)
        different = next((found for found in by_fold.values() if len(found) > 1), None)
        if different:
            names = summarize_names([str(run.run) for run in different.values()], 3)
            warnings.append(
                f"the runs have different {split} data, so their metrics are not comparable: "
                f"{names}"
            )
    return warnings
