"""How far made pictures are from real ones, both as points in a space of features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

NUM_NEIGHBORS = 3
"""A point's neighbourhood reaches to its third nearest of the same kind (Kynkäänniemi 2019, section 2)."""

MIN_SAMPLES = NUM_NEIGHBORS + 1
"""Points that have such neighbourhoods."""

CHUNK_SIZE = 1024
"""Rows of a matrix of distances that are held in memory."""

SUBSETS = 20
"""KID is the mean over so many subsets where there are more points than one holds."""

KID_SUBSET_SIZE = 1000


class FeatureCollector(Metric):
    """Rows of features (n, D) with their places (n,), over all processes, in the order of their places.

    So the order in which they are seen does not matter, nor which process sees them.
    """

    rows: list[Tensor]
    places: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("places", [], dist_reduce_fx="cat")

    def update(self, places: Tensor, rows: Tensor) -> None:
        """Take (k, D) rows at (k,) places."""
        self.rows.append(rows)
        self.places.append(places.to(rows.device))

    def compute(self) -> tuple[Tensor, Tensor]:
        """All places so far, rising, and their rows."""
        rows, places = _concat_state(self.rows), _concat_state(self.places)
        order = places.argsort()
        return places[order].cpu(), rows[order].cpu()


class _PrecomputedFeatures(nn.Module):
    """In the place of the network that torchmetrics would look through: the points are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, points: Tensor) -> Tensor:
        return points


def fid(real: Tensor, fake: Tensor) -> Tensor:
    """FID: the distance of two normal distributions with the means and covariances of points (Heusel 2017).

    0 where they agree. With few points it is too large, so only numbers of as many points may be compared.

    Args:
        real: (n, D).
        fake: (m, D).
    """
    measure = FrechetInceptionDistance(_PrecomputedFeatures(real.shape[1]), sync_on_compute=False)
    measure.update(real.double(), real=True)
    measure.update(fake.double(), real=False)
    return measure.compute()


def kid(real: Tensor, fake: Tensor) -> Tensor:
    """KID: the squared maximum mean discrepancy by a cubic kernel, without bias (Bińkowski 2018).

    About 0 where two sets of points are of one distribution; not hanging on how many there are. Of more than
    ``SUBSET`` points, the mean over subsets, always the same ones.

    Args:
        real: (n, D).
        fake: (m, D).
    """
    size = min(len(real), len(fake), KID_SUBSET_SIZE)
    subsets = 1 if max(len(real), len(fake)) <= size else SUBSETS
    random = torch.Generator().manual_seed(0)

    def drawn(points: Tensor) -> Tensor:
        return points.double()[torch.randperm(len(points), generator=random)[:size]]

    return torch.stack([poly_mmd(drawn(real), drawn(fake)) for _ in range(subsets)]).mean()


def precision(real: Tensor, fake: Tensor) -> Tensor:
    """The part of made points that lie in the neighbourhood of a real one: are they good? (Kynkäänniemi 2019)"""
    return _manifold_coverage(fake, by=real)


def recall(real: Tensor, fake: Tensor) -> Tensor:
    """The part of real points that lie in the neighbourhood of a made one: is all of it made? (Kynkäänniemi 2019)"""
    return _manifold_coverage(real, by=fake)


def diversity(real: Tensor, fake: Tensor) -> Tensor:
    """How far made points are apart, in parts of what real ones are: 1 as they are, 0 where all are the same.

    By the root of the mean squared distance of two points.
    """
    return (fake.double().var(dim=0).sum() / real.double().var(dim=0).sum().clamp(min=1e-12)).sqrt()


DISTANCES = ("fid", "kid", "precision", "recall")


def generative_metrics(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """``fid``, ``kid``, ``precision`` and ``recall`` of (m, D) made points against (n, D) real ones; float64."""
    measures = (fid, kid, precision, recall)
    return {name: measure(real, fake) for name, measure in zip(DISTANCES, measures, strict=True)}


def nearest(points: Tensor, among: Tensor, *, count: int) -> Tensor:
    """(n, count): of each of (n, D) points, the places of the nearest of (m, D) others, the nearest first."""
    return torch.cdist(points.double(), among.double()).topk(count, largest=False).indices


def _manifold_coverage(points: Tensor, *, by: Tensor) -> Tensor:
    """The part of points that lie in the neighbourhood of any of the others."""
    points, by = points.double(), by.double()
    # The nearest of a point to itself is itself.
    reach = torch.cat(
        [torch.cdist(part, by).kthvalue(NUM_NEIGHBORS + 1).values for part in by.split(CHUNK_SIZE)]
    )
    inside = [(torch.cdist(part, by) <= reach).any(dim=1) for part in points.split(CHUNK_SIZE)]
    return torch.cat(inside).double().mean()


def _concat_state(rows: list[Tensor] | Tensor) -> Tensor:
    """Of a list, or of one tensor after processes have exchanged theirs."""
    return torch.cat(rows) if isinstance(rows, list) else rows
