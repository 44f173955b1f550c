"""Distances between generated and real images, both as points in a feature space."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

NUM_NEIGHBORS = 3
"""The neighborhood of a point reaches to its third nearest neighbor (Kynkäänniemi 2019)."""

MIN_SAMPLES = NUM_NEIGHBORS + 1
"""Minimum number of points for such neighborhoods."""

CHUNK_SIZE = 1024
"""Number of rows of a distance matrix that are in memory at a time."""

NUM_KID_SUBSETS = 20
"""Number of subsets over which KID is averaged if there are more points than in one subset."""

KID_SUBSET_SIZE = 1000


class FeatureCollector(Metric):
    """Collects features (n, D) with the indices (n,) of their images.

    They are sorted by index, so the result depends neither on the order of batches nor on the rank
    that has computed them.
    """

    features: list[Tensor]
    indices: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("features", [], dist_reduce_fx="cat")
        self.add_state("indices", [], dist_reduce_fx="cat")

    def update(
        self,
        indices: Tensor,
        features: Tensor,
    ) -> None:
        """Add a batch.

        Args:
            indices: (k,) indices of the images.
            features: (k, D).
        """
        self.features.append(features)
        self.indices.append(indices.to(features.device))

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return all indices (n,), ascending, and their features (n, D), on the CPU."""
        features, indices = _concat_state(self.features), _concat_state(self.indices)
        order = indices.argsort()
        return indices[order].cpu(), features[order].cpu()

    def compute_or_empty(self, make_empty: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """Compute on a rank that may have no data, and must join the gather nevertheless.

        Args:
            make_empty: returns its features, (0, D).
        """
        if not self.update_called:
            self.update(torch.empty(0, dtype=torch.int64), make_empty())
        return self.compute()


class _PrecomputedFeatures(nn.Module):
    """Stand-in for torchmetrics' feature extractor: the features are already computed."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid(real: Tensor, fake: Tensor) -> Tensor:
    """Compute the Fréchet distance of the normal distributions fitted to features (Heusel 2017).

    It is 0 for equal distributions. It is biased for few samples, so only values from the same
    numbers of samples may be compared.

    Args:
        real: (n, D) features of real images.
        fake: (m, D) features of generated images.
    """
    metric = FrechetInceptionDistance(_PrecomputedFeatures(real.shape[1]), sync_on_compute=False)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    return metric.compute()


def kid(real: Tensor, fake: Tensor) -> Tensor:
    """Compute the squared maximum mean discrepancy with a cubic kernel (Bińkowski 2018).

    It is about 0 for equal distributions, and unbiased for any number of samples. Of more than
    ``KID_SUBSET_SIZE`` samples, it is the mean over fixed random subsets.

    Args:
        real: (n, D) features of real images.
        fake: (m, D) features of generated images.
    """
    size = min(len(real), len(fake), KID_SUBSET_SIZE)
    num_subsets = 1 if max(len(real), len(fake)) <= size else NUM_KID_SUBSETS
    generator = torch.Generator().manual_seed(0)

    def sample(features: Tensor) -> Tensor:
        return features.double()[torch.randperm(len(features), generator=generator)[:size]]

    return torch.stack([poly_mmd(sample(real), sample(fake)) for _ in range(num_subsets)]).mean()


def precision(real: Tensor, fake: Tensor) -> Tensor:
    """Compute the fraction of generated samples in the neighborhood of a real one.

    A measure of quality (Kynkäänniemi 2019).

    Args:
        real: (n, D) features of real images.
        fake: (m, D) features of generated images.
    """
    return _manifold_coverage(fake, by=real)


def recall(real: Tensor, fake: Tensor) -> Tensor:
    """Compute the fraction of real samples in the neighborhood of a generated one.

    A measure of coverage (Kynkäänniemi 2019).

    Args:
        real: (n, D) features of real images.
        fake: (m, D) features of generated images.
    """
    return _manifold_coverage(real, by=fake)


def diversity(real: Tensor, fake: Tensor) -> Tensor:
    """Compute the root mean square distance of two generated samples, relative to real ones.

    It is 1 for the diversity of real images, and 0 if all samples are the same.

    Args:
        real: (n, D) features of real images.
        fake: (m, D) features of generated images.
    """
    return (fake.double().var(dim=0).sum() / real.double().var(dim=0).sum().clamp(min=1e-12)).sqrt()


GENERATIVE_METRICS = {
    "fid": fid,
    "kid": kid,
    "precision": precision,
    "recall": recall,
}
"""Functions of features (n, D) of real images and (m, D) of generated ones."""


def nearest_neighbors(
    points: Tensor,
    candidates: Tensor,
    *,
    count: int,
) -> Tensor:
    """Find the nearest candidates of each point.

    Args:
        points: (n, D).
        candidates: (m, D).
        count: number of neighbors.

    Returns:
        (n, count) indices of candidates, the nearest first.
    """
    distances = torch.cdist(points.double(), candidates.double())
    return distances.topk(count, largest=False).indices


def _manifold_coverage(points: Tensor, *, by: Tensor) -> Tensor:
    """Return the fraction of points in the neighborhood of any of the others."""
    points, by = points.double(), by.double()
    radii = []
    for chunk in by.split(CHUNK_SIZE):
        # The nearest neighbor of a point is the point itself.
        radii.append(torch.cdist(chunk, by).kthvalue(NUM_NEIGHBORS + 1).values)
    radius = torch.cat(radii)
    is_inside = [(torch.cdist(p, by) <= radius).any(dim=1) for p in points.split(CHUNK_SIZE)]
    return torch.cat(is_inside).double().mean()


def _concat_state(state: list[Tensor] | Tensor) -> Tensor:
    """Concatenate a list; after ranks have synchronized, it is a single tensor already."""
    if isinstance(state, list):
        return torch.cat(state)
    return state
