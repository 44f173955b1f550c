"""The settings of a search, from the group ``search``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_type_hints

from vision_lab.core.arguments import Count, Range, check_value
from vision_lab.core.errors import ConfigurationError

Direction = Literal["max", "min"]

RESULT_KEYS = ("parameters", "flops", "seconds")
"""Numbers of ``result.json`` that a search may minimize, which no epoch reports."""

Repeats = Annotated[int, Range(ge=0)]


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """How many runs are trained at the same time, and how often failed ones are repeated.

    Attributes:
        workers: number of processes that train at the same time.
        retry: how often a failed run is repeated when the command is repeated.
    """

    workers: Count = 1
    retry: Repeats = 0


@dataclass(frozen=True, kw_only=True)
class SearchSettings(SweepSettings):
    """What is searched, and how.

    Attributes:
        sampler: node of the sampler, a class of Optuna's kind.
        trials: total number of trials.
        metrics: name of the metric, or of two of them.
        directions: for each metric, whether its best value is the largest or the smallest.
        pruner: how unpromising trials are recognized.
        seed: seed of the values that are tried.
    """

    sampler: dict[str, Any]
    trials: Count
    metrics: tuple[str, ...]
    directions: tuple[Direction, ...]
    pruner: Literal["median", "hyperband", "none"]
    seed: Annotated[int, Range(ge=0, le=2**32 - 1)]

    @property
    def prunes(self) -> bool:
        """Whether trials are ended early, which requires a single metric."""
        return self.pruner != "none" and len(self.metrics) == 1

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that the trials depend on, by key."""
        return {
            "search.sampler": self.sampler,
            "search.metric": list(self.metrics),
            "search.mode": list(self.directions),
            "search.pruner": self.pruner,
            "search.seed": self.seed,
        }


def read_settings(node: Mapping[str, Any]) -> SweepSettings:
    """Read the group ``search``.

    Args:
        node: the values of the group, resolved.

    Returns:
        ``SearchSettings`` for a search, ``SweepSettings`` for all combinations.

    Raises:
        ConfigurationError: if a value is invalid.
    """
    values = dict(node)
    values.pop("trial", None)
    values.pop("space", None)
    settings_class: type[SweepSettings] = SweepSettings
    if "sampler" not in values:  # search=none, maybe with an experiment that describes a search
        for key in ("trials", "metric", "mode", "pruner", "seed"):
            values.pop(key, None)
    else:
        settings_class = SearchSettings
        values["metrics"] = _as_tuple(values.pop("metric", None))
        values["directions"] = _as_tuple(values.pop("mode", None))
    annotations = get_type_hints(settings_class, include_extras=True)
    keys = {"metrics": "metric", "directions": "mode"}
    errors = []
    for name, value in values.items():
        key = f"search.{keys.get(name, name)}"
        if name not in annotations:
            errors.append(f"{key}: there is no such key; type +experiment options elsewhere")
            continue
        error = check_value(
            key, list(value) if isinstance(value, tuple) else value, annotations[name]
        )
        errors += [error] if error else []
    if errors:
        raise ConfigurationError("\n".join(errors))
    settings = settings_class(**values)
    if isinstance(settings, SearchSettings):
        _check_metrics(settings)
    return settings


def _check_metrics(settings: SearchSettings) -> None:
    if not 1 <= len(settings.metrics) <= 2:
        raise ConfigurationError(
            f"search.metric={list(settings.metrics)}: type one metric, or two of them"
        )
    if len(settings.directions) != len(settings.metrics):
        raise ConfigurationError(
            f"search.mode={list(settings.directions)}: type max or min for each of "
            f"{', '.join(settings.metrics)}, such as search.mode=[max,min]"
        )


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)
