"""AdaBoost of decision stumps."""

import torch

from vision_lab.models.classic.boosting import Stage, fit_stage


def count_votes(stage: Stage, features: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(len(features))
    for index, threshold, below, above in stage.stumps.tolist():
        total += torch.where(features[:, int(index)] < threshold, below, above)
    return total


def test_a_stump_finds_the_feature_that_separates_and_where():
    features = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    is_positive = torch.arange(40) < 15
    features[:, 4] = torch.where(is_positive, -1.0, 3.0)
    stage = fit_stage(
        features, is_positive, min_recall=1.0, max_false_positive_rate=0.1, max_stumps=10
    )
    assert stage.stumps.shape == (1, 4)
    index, threshold, below, above = stage.stumps[0].tolist()
    assert (index, threshold, above) == (4.0, 1.0, 0.0)
    assert below > 0
    assert torch.equal(count_votes(stage, features) >= stage.threshold, is_positive)


def test_several_stumps_learn_what_none_does_alone():
    points = torch.rand(400, 2, generator=torch.Generator().manual_seed(0))
    is_positive = ((points - 0.5).abs() < 0.3).all(dim=1)  # a square, which has four sides
    stage = fit_stage(
        points, is_positive, min_recall=0.99, max_false_positive_rate=0.15, max_stumps=60
    )
    passes = count_votes(stage, points) >= stage.threshold
    assert passes[is_positive].float().mean() >= 0.99
    assert passes[~is_positive].float().mean() <= 0.15
    assert 4 <= len(stage.stumps) < 60


def test_there_is_no_threshold_between_equal_values_and_stumps_are_limited():
    features = torch.tensor([[1.0], [1.0], [1.0], [2.0]])
    is_positive = torch.tensor([True, False, True, True])
    stage = fit_stage(
        features, is_positive, min_recall=1.0, max_false_positive_rate=0.0, max_stumps=2
    )
    assert stage.stumps[:, 1].tolist() == [1.5, 1.5]
    assert (count_votes(stage, features) >= stage.threshold)[is_positive].all()


def test_examples_that_are_all_alike_have_no_stump():
    stage = fit_stage(
        torch.ones(6, 3),
        torch.arange(6) < 2,
        min_recall=0.0,
        max_false_positive_rate=0.0,
        max_stumps=5,
    )
    assert stage.stumps.shape == (0, 4)


def test_a_threshold_between_adjacent_numbers_separates_them():
    low = torch.tensor(0.1)
    high = torch.nextafter(low, torch.tensor(1.0))
    features = torch.stack([low, low, high, high])[:, None]
    is_positive = torch.tensor([False, False, True, True])
    stage = fit_stage(
        features, is_positive, min_recall=1.0, max_false_positive_rate=0.0, max_stumps=3
    )
    assert len(stage.stumps) == 1
    assert torch.equal(count_votes(stage, features) >= stage.threshold, is_positive)
