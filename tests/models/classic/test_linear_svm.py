"""Linear support vector machine."""

import pytest
import torch

from vision_lab.models.classic.linear_svm import fit_linear_svm


def make_examples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    is_positive = torch.arange(60) < 20
    features = torch.randn(60, 5, generator=generator)
    features[:, 0] += torch.where(is_positive, 2.0, -2.0)
    features[:, 1] -= torch.where(is_positive, 1.0, -1.0)
    return features, is_positive


def loss(weight: torch.Tensor, bias: torch.Tensor) -> float:
    features, is_positive = make_examples()
    margins = torch.where(is_positive, 1.0, -1.0) * (features @ weight + bias)
    hinge = (1 - margins).clamp(min=0).square()
    means = hinge[is_positive].mean() + hinge[~is_positive].mean()
    return float(0.5 * weight.square().sum() + 10 * means)


def test_the_solution_separates_the_classes_and_is_a_minimum():
    features, is_positive = make_examples()
    weight, bias = fit_linear_svm(
        features, is_positive, penalty=10.0, minimum=torch.full((5,), -torch.inf)
    )
    assert torch.equal(features @ weight + bias > 0, is_positive)
    best = loss(weight, bias)
    for index in range(5):
        for change in (-0.05, 0.05):
            other = weight.clone()
            other[index] += change
            assert loss(other, bias) > best
    assert min(loss(weight, bias + 0.05), loss(weight, bias - 0.05)) > best


def test_lower_bounds_hold_and_the_other_weights_adapt():
    features, is_positive = make_examples()
    minimum = torch.full((5,), -torch.inf)
    minimum[1] = 0.25  # where the best weight is negative
    weight, bias = fit_linear_svm(features, is_positive, penalty=10.0, minimum=minimum)
    assert float(weight[1]) == 0.25
    moved = weight.clone()
    moved[0] += 0.05
    assert loss(moved, bias) > loss(weight, bias)


def test_the_support_vector_machine_has_the_largest_margin():
    """Of four points on a line, the inner two decide."""
    features = torch.tensor([[-3.0], [-1.0], [1.0], [3.0]])
    is_positive = torch.tensor([False, False, True, True])
    weight, bias = fit_linear_svm(
        features, is_positive, penalty=1e5, minimum=torch.full((1,), -torch.inf)
    )
    assert weight.item() == pytest.approx(1, abs=1e-2)
    assert bias.item() == pytest.approx(0, abs=1e-2)


def test_the_numbers_of_examples_of_each_kind_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    positives = torch.randn(50, 5, generator=generator) + 1
    negatives = torch.randn(50, 5, generator=generator) - 1
    is_positive = torch.arange(100) < 50
    minimum = torch.full((5,), -torch.inf)
    once = fit_linear_svm(
        torch.cat([positives, negatives]), is_positive, penalty=10.0, minimum=minimum
    )
    features = torch.cat([positives, negatives.repeat(4, 1)])
    often = fit_linear_svm(features, torch.arange(250) < 50, penalty=10.0, minimum=minimum)
    torch.testing.assert_close(once[0], often[0], atol=1e-2, rtol=0)
    scores = features @ once[0] + once[1]
    assert (scores[:50] > 0).float().mean() > 0.9
