"""Metrics of samples: an independent computation, and known limits."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from vision_lab.metrics import generative as ours
from vision_lab.metrics.generative import (
    FeatureCollector,
    diversity,
    fid,
    kid,
    nearest_neighbors,
    precision,
    recall,
)


def points(
    count: int, *, seed: int, mean: float = 0.0, scale: float = 1.0, size: int = 6
) -> Tensor:
    """Return correlated, skewed features, like those after a ReLU."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(size, size))
    return torch.from_numpy(
        np.maximum(random.normal(mean, scale, size=(count, size)) @ mixing, 0).astype(np.float32)
    )


def frechet_by_scipy(real: Tensor, fake: Tensor) -> float:
    one, other = real.double().numpy(), fake.double().numpy()
    root = scipy.linalg.sqrtm(np.cov(one, rowvar=False) @ np.cov(other, rowvar=False)).real
    means = ((one.mean(axis=0) - other.mean(axis=0)) ** 2).sum()
    return float(
        means + np.trace(np.cov(one, rowvar=False) + np.cov(other, rowvar=False) - 2 * root)
    )


def kernel_by_numpy(real: Tensor, fake: Tensor) -> float:
    """Compute the unbiased estimate pair by pair."""
    one, other = real.double().numpy(), fake.double().numpy()

    def similar(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    n, m = len(one), len(other)
    within = [
        (similar(x, x).sum() - np.trace(similar(x, x))) / (len(x) * (len(x) - 1))
        for x in (one, other)
    ]
    return float(sum(within) - 2 * similar(one, other).sum() / (n * m))


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (0.4, 1.0), (0.0, 0.5), (1.0, 2.0)])
def test_fid_and_kid_agree_with_scipy_and_numpy(mean: float, scale: float):
    real, fake = points(300, seed=1), points(300, seed=2, mean=mean, scale=scale)
    assert fid(real, fake).item() == pytest.approx(frechet_by_scipy(real, fake), rel=1e-4)
    assert kid(real, fake).item() == pytest.approx(kernel_by_numpy(real, fake), rel=1e-4)


def test_fid_with_different_numbers_of_images():
    real, fake = points(500, seed=1), points(200, seed=2, mean=0.3)
    assert fid(real, fake).item() == pytest.approx(frechet_by_scipy(real, fake), rel=1e-4)


def test_kid_over_subsets_approximates_that_of_all(monkeypatch: pytest.MonkeyPatch):
    real, fake = points(900, seed=1), points(700, seed=2, mean=0.8)
    monkeypatch.setattr(ours, "KID_SUBSET_SIZE", 300)
    value = kid(real, fake)
    assert value.item() == pytest.approx(kernel_by_numpy(real, fake), rel=0.1)
    torch.rand(1)
    assert kid(real, fake) == value  # whatever was drawn before


def precision_by_hand(real: np.ndarray, fake: np.ndarray) -> float:
    """As defined in the paper: is a generated point within the third-nearest distance of any real point?"""
    inside = 0
    for point in fake:
        for center in real:
            reach = sorted(np.linalg.norm(real - center, axis=1))[3]  # the first is itself
            if np.linalg.norm(point - center) <= reach:
                inside += 1
                break
    return inside / len(fake)


def test_precision_and_recall_equal_those_by_hand(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ours, "CHUNK_SIZE", 7)
    real, fake = points(40, seed=1), points(30, seed=2, mean=0.6)
    one, other = real.double().numpy(), fake.double().numpy()
    assert precision(real, fake).item() == pytest.approx(precision_by_hand(one, other))
    assert recall(real, fake).item() == pytest.approx(precision_by_hand(other, one))
    assert 0 < precision(real, fake) < 1


def test_precision_and_recall_distinguish_quality_and_coverage():
    """Two clusters: samples of one have precision but not recall, distant ones neither."""
    random = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 100, 4, generator=random)
    real = torch.cat([one, two + 50])
    half = torch.randn(200, 4, generator=random)
    assert precision(real, half) > 0.8
    assert 0.3 < recall(real, half) <= 0.5
    assert precision(real, half - 1000) == recall(real, half - 1000) == 0


def test_the_same_points():
    real = points(100, seed=1)
    assert fid(real, real).item() == pytest.approx(0, abs=1e-6)
    assert precision(real, real) == recall(real, real) == 1
    assert diversity(real, real) == 1


def test_diversity_falls_as_points_approach_each_other():
    real = points(200, seed=1)
    assert diversity(real, real * 0.25 + 7).item() == pytest.approx(0.25)
    assert diversity(real, real[:1].expand(50, -1)) == 0


def test_features_are_sorted_by_index():
    seen = FeatureCollector()
    seen.update(torch.tensor([3, 0]), torch.tensor([[3.0], [0.0]]))
    seen.update(torch.tensor([2, 1]), torch.tensor([[2.0], [1.0]]))
    places, rows = seen.compute()
    assert places.tolist() == rows.flatten().tolist() == [0, 1, 2, 3]


def test_nearest_neighbors():
    among = torch.tensor([[0.0], [1.0], [5.0], [6.5]])
    assert nearest_neighbors(torch.tensor([[5.2], [0.9]]), among, count=2).tolist() == [
        [2, 3],
        [1, 0],
    ]
