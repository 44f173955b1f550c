"""Intervals, tests and numbers of seeds, on simulated metrics with known means."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from scipy import stats

from vision_lab.compare.comparison import describe_difference
from vision_lab.compare.statistics import (
    compare,
    estimate_seeds,
    find_significant,
    summarize,
)

REPETITIONS = 500
NOISE = 0.01


def simulate(
    rng: np.random.Generator, mean: float, seeds: int, shared: np.ndarray | float = 0.0
) -> dict[tuple[str, ...], float]:
    """Return a metric by seed, with noise of its own and noise that groups share."""
    values = mean + NOISE * (rng.normal(size=seeds) + shared)
    return {(str(seed),): float(value) for seed, value in enumerate(values)}


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_contain_the_truth_in_95_percent(seeds: int):
    rng = np.random.default_rng(0)
    means, differences, found = 0, 0, 0
    for _ in range(REPETITIONS):
        shared = rng.normal(size=seeds)
        first = simulate(rng, 0.9, seeds, shared)
        second = simulate(rng, 0.88, seeds, shared)
        equal = simulate(rng, 0.9, seeds, shared)
        summary, difference = summarize(list(first.values())), compare(first, second)
        means += summary.low <= 0.9 <= summary.high
        differences += difference.low <= 0.02 <= difference.high
        found += any(find_significant([compare(first, equal)]))
    assert 0.93 <= means / REPETITIONS <= 0.97
    assert 0.93 <= differences / REPETITIONS <= 0.97
    assert found / REPETITIONS <= 0.07


@pytest.mark.slow
@pytest.mark.exhaustive
def test_several_equal_groups_are_rarely_found_different():
    """With the correction for several comparisons, as often as two groups."""
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(REPETITIONS):
        reference = simulate(rng, 0.9, 5)
        others = [simulate(rng, 0.9, 5) for _ in range(3)]
        found += any(find_significant([compare(other, reference) for other in others]))
    assert found / REPETITIONS <= 0.07


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_difference_of_two_deviations_is_found():
    """In most of the simulations: of the paired differences, with five seeds."""
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(REPETITIONS):
        shared = rng.normal(size=5)
        first, second = (
            simulate(rng, mean, 5, shared) for mean in (0.9 + 2 * math.sqrt(2) * NOISE, 0.9)
        )
        found += any(find_significant([compare(first, second)]))
    assert found / REPETITIONS > 0.9


def test_a_mean_with_its_deviation():
    summary = summarize([0.8, 0.9, 1.0])
    assert summary.mean == pytest.approx(0.9)
    assert summary.deviation == pytest.approx(0.1)
    assert summary.low == pytest.approx(0.9 - 4.3027 * 0.1 / math.sqrt(3), abs=1e-4)
    assert summarize([0.8]) == (1, 0.8, None, None, None)
    assert summarize([0.8, math.nan, math.inf]).size == 1
    assert math.isnan(summarize([math.nan]).mean)
    assert summarize([0.8, 0.8]) == (2, 0.8, 0.0, 0.8, 0.8)


def test_folds_have_wider_intervals_than_seeds():
    """By the factor of Nadeau and Bengio: the square root of 1 + 5/4 for five folds."""
    scores = [0.81, 0.83, 0.80, 0.84, 0.82]
    seeds, folds = summarize(scores), summarize(scores, overlap=1 / 4)
    assert folds[:3] == seeds[:3]
    assert folds.high - folds.mean == pytest.approx(1.5 * (seeds.high - seeds.mean))
    first, second = values(*scores), values(0.80, 0.81, 0.80, 0.82, 0.81)
    paired = [compare(first, second, overlap=overlap) for overlap in (None, 1 / 4)]
    assert paired[1].high - paired[1].mean == pytest.approx(1.5 * (paired[0].high - paired[0].mean))
    assert paired[0].p_value < 0.05 < paired[1].p_value
    verdict = describe_difference(paired[1], 1, is_significant=False, num_folds=5)
    assert verdict == "undecided with 5 runs of 5 folds"


def test_runs_without_common_seeds_are_compared_by_the_test_of_welch():
    """The same as SciPy's, whose interval is not used because that of folds is wider."""
    first, second = [0.9, 0.8, 0.85, 0.86], [0.7, 0.72, 0.78]
    found = compare(values(*first), values(*second, first=10))
    expected = stats.ttest_ind(first, second, equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def values(*scores: float, first: int = 0) -> dict[tuple[str, ...], float]:
    return {(str(first + index),): score for index, score in enumerate(scores)}


@pytest.mark.parametrize(
    ("first", "second", "size", "is_paired", "verdict"),
    [
        (values(0.8, 0.82, 0.81), values(0.7, 0.72, 0.711), 3, True, "better"),
        (values(0.7, 0.72, 0.711), values(0.8, 0.82, 0.81), 3, True, "worse"),
        (values(0.8, 0.82, 0.81), values(0.7, 0.72, 0.711, first=7), 3, False, "better"),
        (values(0.8, 0.9), values(0.7, 0.72, 0.711, first=1), 2, False, "undecided with 2 seeds"),
        (values(0.8, 0.9, 0.7), values(0.79, 0.91, 0.72), 3, True, "undecided with 3 seeds; about"),
        (values(0.8), values(0.7), 1, False, "unknown with 1 seed"),
        (values(0.8, 0.8, 0.8), values(0.8, 0.8, 0.8), 3, True, "equal"),
        (values(0.9, 0.9, 0.9), values(0.8, 0.8, 0.8), 3, True, "better"),
        (values(0.9, 0.9), values(0.8, 0.8), 2, True, "undecided with 2 seeds"),
        (values(math.nan, math.nan), values(0.8, 0.8), 0, False, "unknown: no finite value"),
        (values(0.8, math.nan, 0.9), values(0.7, 0.72, 0.7), 2, True, "undecided with 2 seeds"),
    ],
)
def test_differences_in_words(
    first: Mapping[tuple[str, ...], float],
    second: Mapping[tuple[str, ...], float],
    size: int,
    is_paired: bool,
    verdict: str,
):
    difference = compare(first, second)
    assert (difference.size, difference.is_paired) == (size, is_paired)
    (is_significant,) = find_significant([difference])
    described = describe_difference(difference, 1, is_significant=is_significant)
    assert described.startswith(verdict)
    if verdict in ("better", "worse"):
        opposite = describe_difference(difference, -1, is_significant=True)
        assert {described, opposite} == {"better", "worse"}


def test_the_estimated_number_of_seeds_has_the_power():
    """About four in five experiments with that many seeds find the difference."""
    rng = np.random.default_rng(3)
    first = values(0.90, 0.93, 0.91, 0.89)
    second = values(0.89, 0.90, 0.905, 0.89)
    difference = compare(first, second)
    needed = estimate_seeds(difference)
    assert needed is not None
    assert needed > 4
    found = 0
    for _ in range(REPETITIONS):
        drawn = rng.normal(difference.effect, 1, size=needed)
        found += compare(values(*drawn), values(*[0.0] * needed)).p_value < 0.05
    assert 0.75 <= found / REPETITIONS <= 0.9
    assert estimate_seeds(compare(values(1e-9, -1.0, 1.0), values(0.0, 0.0, 0.0))) is None
