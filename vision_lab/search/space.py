"""Search spaces in Hydra's grammar, and the values that a trial has in them.

A space maps the key of each varied option to a distribution of Optuna:

    optimizer.lr=tag(log,interval(1e-4,1e-1))   a number, uniform in its logarithm
    optimizer.weight_decay=interval(0,0.1)      a number
    head.channels=int(interval(16,64))          a whole number
    head.num_convs=range(1,4)                   1, 2 or 3, which are ordered
    model=resnet20,resnet32                     a choice without order
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from vision_lab.core.errors import ConfigurationError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Values = dict[str, Any]
"""The value of each varied key in a trial: numbers, or text as it is typed."""


@dataclass(frozen=True)
class SearchSpace:
    """What a search varies, and what all of its trials have in common.

    Attributes:
        distributions: the distribution of each varied key.
        fixed: overrides that are not varied, as they are typed.
        texts: each varied key with its values, as they are typed.
    """

    distributions: dict[str, BaseDistribution]
    fixed: tuple[str, ...]
    texts: dict[str, str]

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """Return the overrides of a trial.

        Args:
            values: the value of each varied key.
        """
        varied = [f"{key}={values[key]}" for key in self.distributions]
        return [*self.fixed, *varied]


def parse_space(arguments: Sequence[str], space: Mapping[str, Any]) -> SearchSpace:
    """Parse the overrides of a command into a search space.

    Args:
        arguments: the overrides of the command line.
        space: the key ``search.space``; values of the command line replace those of the same key.

    Raises:
        ConfigurationError: if nothing is varied, or a value is not valid.
    """
    written = [f"{key}={text}" for key, text in space.items()]
    parsed: dict[str, Override] = {}
    for override in OverridesParser.create().parse_overrides([*written, *arguments]):
        parsed[override.get_key_element()] = override
    distributions, fixed, texts = {}, [], {}
    for key, override in parsed.items():
        if override.is_sweep_override():
            distributions[key] = _distribution(override)
            texts[key] = str(override.input_line).partition("=")[2]
        else:
            fixed.append(f"{key}={override.get_value_element_as_str()}")
    if not distributions:
        raise ConfigurationError(
            "a search varies at least one option: type optimizer.lr='tag(log,interval(1e-4,1e-1))' "
            "or model=resnet20,resnet32"
        )
    return SearchSpace(distributions, tuple(fixed), texts)


def find_intervals(arguments: Sequence[str]) -> list[str]:
    """Return the overrides that are intervals, which only a search can vary."""
    intervals = []
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        if override.is_interval_sweep():
            intervals.append(str(override.input_line))
    return intervals


def _distribution(override: Override) -> BaseDistribution:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    value = override.value()
    try:
        if isinstance(value, IntervalSweep):
            low: Any = value.start
            high: Any = value.end
            is_log = "log" in value.tags
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log=is_log)
            return FloatDistribution(float(low), float(high), log=is_log)
        choices = list(override.sweep_string_iterator())
        if isinstance(value, RangeSweep) and not value.shuffle:
            steps = [float(choice) for choice in choices]
            if all(step.is_integer() for step in (*steps, float(value.step))):
                return IntDistribution(int(min(steps)), int(max(steps)), step=abs(int(value.step)))
        return CategoricalDistribution(choices)
    except ValueError as error:
        raise ConfigurationError(f"{override.input_line} cannot be varied: {error}") from error
