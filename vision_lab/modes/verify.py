"""``mode=verify run=...``: evaluate a run again, and fail if its metrics are not as expected."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from vision_lab.config.resolution import Config
from vision_lab.core import console
from vision_lab.core.arguments import NonNegative
from vision_lab.core.errors import ConfigurationError, UserError
from vision_lab.modes.evaluate import evaluate_run
from vision_lab.run_folders.folder import Run

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}

EXPECTATION = re.compile(r"\s*([\w./-]+)\s*(>=|<=|>|<)\s*([-+.\deE]+)\s*")


class Expectation(NamedTuple):
    """A condition for a metric.

    Attributes:
        metric: name of the metric.
        comparison: one of ``OPERATORS``.
        bound: the number it is compared with.
    """

    metric: str
    comparison: str
    bound: float


def verify(
    config: Config,
    folder: Path,
    *,
    split: Literal["train", "val", "test"] = "test",
    expect: str | None = None,
    tolerance: NonNegative = 0.001,
) -> None:
    """Evaluate a run again, and compare its metrics with what is expected.

    Args:
        config: the run's config, with the overrides of the command line.
        folder: output folder, as of ``mode=evaluate``.
        split: the split to evaluate.
        expect: conditions such as ``test/accuracy>=0.89``, separated by commas; None for the
            metrics that the run has reported after training.
        tolerance: largest difference from these.

    Raises:
        ConfigurationError: if a condition is invalid.
        UserError: if a metric is not as expected.
    """
    expectations = parse_expectations(expect) if expect else []
    metrics = evaluate_run(config, folder, split=split)
    if metrics is None:
        return
    if expect:
        failures = find_failures(expectations, metrics)
    else:
        failures = _compare_with_training(Run.open(config["run"]), metrics, tolerance)
    if failures:
        raise UserError("\n".join(["the run is not as expected:", *failures]))
    console.print_line("as expected")


def parse_expectations(text: str) -> list[Expectation]:
    """Parse conditions.

    Args:
        text: the conditions, separated by commas.

    Raises:
        ConfigurationError: if one is invalid.
    """
    parsed = []
    for part in text.split(","):
        match = EXPECTATION.fullmatch(part)
        try:
            assert match is not None
            parsed.append(Expectation(match[1], match[2], float(match[3])))
        except (AssertionError, ValueError):
            raise ConfigurationError(
                f"mode.expect={part}: type a metric, one of {', '.join(OPERATORS)}, and a number, "
                "such as 'test/accuracy>=0.89'"
            ) from None
    return parsed


def find_failures(
    expectations: list[Expectation],
    metrics: Mapping[str, float],
) -> list[str]:
    """Return a line for each condition that is not met.

    Args:
        expectations: the conditions.
        metrics: the metrics by name.

    Raises:
        ConfigurationError: if there is no such metric.
    """
    failures = []
    for metric, comparison, bound in expectations:
        if metric not in metrics:
            raise ConfigurationError(
                f"mode.expect={metric}: there is no such metric: type one of {', '.join(metrics)}"
            )
        if not OPERATORS[comparison](metrics[metric], bound):
            failures.append(f"  {metric} is {metrics[metric]:.6g}, not {comparison} {bound:g}")
    return failures


def _compare_with_training(
    run: Run,
    metrics: Mapping[str, float],
    tolerance: float,
) -> list[str]:
    """Return a line for each metric that differs from the one reported after training.

    Raises:
        ConfigurationError: if there is none to compare with.
    """
    reported = (run.result or {}).get("metrics", {})
    common = [name for name in metrics if name in reported]
    if not common:
        raise ConfigurationError(
            f"{run} has reported no such metrics to compare with: type "
            "mode.expect='<metric> >= <number>'"
        )
    failures = []
    for name in common:
        # Also true for NaN, which equals nothing
        if not abs(metrics[name] - reported[name]) <= tolerance:
            failures.append(f"  {name} is {metrics[name]:.6g}, and was {reported[name]:.6g}")
    return failures
