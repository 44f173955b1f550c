"""What differs between two runs: config, data, code and versions, and the curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vision_lab.compare.groups import ABSENT
from vision_lab.core.documents import DocumentError, read_text
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import format_path
from vision_lab.run_folders.folder import Run
from vision_lab.run_folders.resume import flatten_keys, is_ignored

ENVIRONMENT_KEYS = ("python", "platform", "commit", "uncommitted")
"""Keys of ``environment.json`` that are compared besides the versions of packages."""


@dataclass(frozen=True)
class RunDifference:
    """What differs between two runs.

    Attributes:
        config: for each differing key, both values; without keys that do not change results.
        data: for each split with different data, both fingerprints.
        environment: for each differing version, machine or commit, both values.
        epoch: the first epoch, from 1, in which a metric differs; None if there is none.
        metrics: for each metric that differs in it, both values.
        epochs: number of epochs that both runs have.
    """

    config: Mapping[str, tuple[Any, Any]]
    data: Mapping[str, tuple[Any, Any]]
    environment: Mapping[str, tuple[Any, Any]]
    epoch: int | None
    metrics: Mapping[str, tuple[str, str]]
    epochs: int


def compare_two(first: Run, second: Run) -> RunDifference:
    """Compare two runs.

    Args:
        first: a run.
        second: another run.

    Raises:
        ConfigurationError: if a file cannot be read.
    """
    configs = [flatten_keys(run.config) for run in (first, second)]
    config = {}
    for key, values in find_differing(*configs).items():
        if not is_ignored(key):
            config[key] = values
    rows = [run.read_rows("metrics.csv") for run in (first, second)]
    epoch, metrics = _find_parting(*rows)
    return RunDifference(
        config=config,
        data=find_differing(first.data or {}, second.data or {}),
        environment=find_differing(_describe_code(first), _describe_code(second)),
        epoch=epoch,
        metrics=metrics,
        epochs=min(len(rows[0]), len(rows[1])),
    )


def find_differing(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Return both values of each key in which two mappings differ, ``-`` for absent ones.

    Args:
        first: values by key, such as those of a config by dotted key.
        second: other ones.
    """
    differing = {}
    for key in dict.fromkeys([*first, *second]):
        values = first.get(key, ABSENT), second.get(key, ABSENT)
        if values[0] != values[1]:
            differing[key] = values
    return differing


def _describe_code(run: Run) -> dict[str, Any]:
    """Return versions and commit; changes that were not committed are compared as text."""
    environment = run.environment
    described = dict(environment.get("versions", {}))
    for key in ENVIRONMENT_KEYS:
        described[key] = environment.get(key, ABSENT)
    file = run.folder / "uncommitted.diff"
    if file.is_file():
        try:
            described["uncommitted"] = read_text(file)
        except DocumentError as error:
            raise ConfigurationError(f"{format_path(file)} cannot be read: {error}") from error
    return described


def _find_parting(
    first: list[dict[str, str]], second: list[dict[str, str]]
) -> tuple[int | None, dict[str, tuple[str, str]]]:
    """Return the first epoch in which a metric of both runs differs, and these metrics."""
    for epoch, (one, two) in enumerate(zip(first, second, strict=False), start=1):
        metrics = {}
        for name in one:
            if name in two and "/" in name and one[name] != two[name]:
                metrics[name] = (one[name], two[name])
        if metrics:
            return epoch, metrics
    return None, {}
