"""AdaBoost of decision stumps, for a stage of a cascade.

Viola, Jones: Rapid Object Detection using a Boosted Cascade of Simple Features, 2001, tables 1
and 2. https://doi.org/10.1109/CVPR.2001.990517
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MIN_ERROR = 1e-6
"""Lower bound of the error of a stump, whose vote would otherwise be infinite."""


class Stage(NamedTuple):
    """A classifier of a cascade.

    Attributes:
        stumps: (T, 4): index of a feature, threshold, and the votes below and from the threshold.
        threshold: sum of votes from which a window passes.
    """

    stumps: Tensor
    threshold: float


def fit_stage(
    features: Tensor,
    is_positive: Tensor,
    *,
    min_recall: float,
    max_false_positive_rate: float,
    max_stumps: int,
) -> Stage:
    """Add stumps until few enough negative examples pass.

    Args:
        features: (n, F).
        is_positive: (n,) bool.
        min_recall: fraction of the positive examples that must pass.
        max_false_positive_rate: fraction of the negative examples that may pass.
        max_stumps: maximum number of stumps.
    """
    columns = features.T.contiguous()
    order = columns.argsort(dim=1)
    ordered = columns.gather(1, order)
    # Between equal values there is no threshold.
    can_split = torch.nn.functional.pad(ordered[:, 1:] > ordered[:, :-1], (0, 1))
    weights = torch.where(is_positive, 0.5 / is_positive.sum(), 0.5 / (~is_positive).sum())
    signs = torch.where(is_positive, 1.0, -1.0)
    stumps, votes = [], torch.zeros(len(features))
    threshold = 0.0
    if not can_split.any():
        return Stage(torch.zeros(0, 4), threshold)
    for _ in range(max_stumps):
        weights = weights / weights.sum()
        stump, wrong = _fit_stump(ordered, order, can_split, weights, signs)
        error = float(weights[wrong].sum().clamp(min=MIN_ERROR))
        weights = torch.where(wrong, weights, weights * error / (1 - error))
        stumps.append(stump)
        index, value, below, above = stump.tolist()
        votes = votes + torch.where(features[:, int(index)] < value, below, above)
        threshold = _choose_threshold(votes[is_positive], min_recall)
        if (votes[~is_positive] >= threshold).float().mean() <= max_false_positive_rate:
            break
    return Stage(torch.stack(stumps), threshold)


def _fit_stump(
    ordered: Tensor, order: Tensor, can_split: Tensor, weights: Tensor, signs: Tensor
) -> tuple[Tensor, Tensor]:
    """Find the stump with the smallest weighted error.

    Args:
        ordered: (F, n) values of each feature, in ascending order.
        order: (F, n) the examples they belong to.
        can_split: (F, n) bool, where the next value is larger.
        weights: (n,) weights of the examples, which add up to one.
        signs: (n,) 1 for positive and -1 for negative examples.

    Returns:
        The stump, (4,), and which examples it gets wrong, (n,) bool.
    """
    # How much more positive than negative weight there is up to each value.
    excess = (weights * signs)[order].cumsum(dim=1)
    negative_weight = weights[signs < 0].sum()
    lowest = torch.where(can_split, excess, torch.inf).argmin()
    highest = torch.where(can_split, excess, -torch.inf).argmax()
    # With negatives below the threshold, positives below it and negatives above it are wrong.
    error_if_above = negative_weight + excess.flatten()[lowest]
    error_if_below = 1 - negative_weight - excess.flatten()[highest]
    is_positive_below = bool(error_if_below < error_if_above)
    best = int(highest if is_positive_below else lowest)
    feature, position = divmod(best, excess.shape[1])
    below, above = ordered[feature, position], ordered[feature, position + 1]
    middle = (below + above) / 2
    threshold = torch.where(middle > below, middle, above)  # of adjacent numbers there is none
    error = torch.minimum(error_if_above, error_if_below).clamp(min=MIN_ERROR)
    vote = ((1 - error) / error).log()
    zero = torch.zeros(())
    votes = (vote, zero) if is_positive_below else (zero, vote)
    stump = torch.stack([torch.tensor(float(feature)), threshold, *votes])
    is_below = torch.zeros(len(weights), dtype=torch.bool)
    is_below[order[feature, : position + 1]] = True
    is_called_positive = is_below if is_positive_below else ~is_below
    return stump, is_called_positive != (signs > 0)


def _choose_threshold(votes: Tensor, min_recall: float) -> float:
    """Return the largest threshold that enough positive examples reach."""
    num_dropped = min(int(len(votes) * (1 - min_recall)), len(votes) - 1)
    return float(votes.sort().values[num_dropped])
