"""GAN losses and penalties: values and signs of gradients."""

import math

import pytest
import torch
from torch import Tensor, nn

from vision_lab.core.arguments import ArgumentError
from vision_lab.losses.gan import (
    AdversarialLoss,
    Hinge,
    NonSaturating,
    Wasserstein,
    gradient_penalty,
    r1_penalty,
)

LOSSES: dict[str, AdversarialLoss] = {
    "bce": NonSaturating(),
    "hinge": Hinge(),
    "wgan_gp": Wasserstein(),
}

REAL, FAKE = torch.tensor([0.5, -0.3]), torch.tensor([0.2, -2.0])


def softplus(value: float) -> float:
    return math.log(1 + math.exp(value))


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        (
            "bce",
            (softplus(-0.5) + softplus(0.3)) / 2 + (softplus(0.2) + softplus(-2.0)) / 2,
            (softplus(-0.2) + softplus(2.0)) / 2,
        ),
        ("hinge", (0.5 + 1.3) / 2 + (1.2 + 0) / 2, (-0.2 + 2.0) / 2),
        ("wgan_gp", (0.2 - 2.0) / 2 - (0.5 - 0.3) / 2, (-0.2 + 2.0) / 2),
    ],
)
def test_losses_equal_those_by_hand(name: str, discriminator: float, generator: float):
    loss = LOSSES[name]
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(discriminator, abs=1e-6)
    assert loss.generator(FAKE).item() == pytest.approx(generator, abs=1e-6)


def test_label_smoothing_is_one_sided():
    loss = NonSaturating(real_label=0.9)
    expected = 0.9 * softplus(-0.5) + 0.1 * softplus(0.5) + softplus(0.2)
    assert loss.discriminator(REAL[:1], FAKE[:1]).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gan_losses_have_the_right_sign(name: str):
    """The discriminator's loss decreases with scores of real images, the generator's with those of generated ones."""
    loss = LOSSES[name]
    real, fake = (torch.linspace(-0.9, 0.9, 7, requires_grad=True) for _ in range(2))
    of_real, of_fake = torch.autograd.grad(loss.discriminator(real, fake), [real, fake])
    assert (of_real < 0).all()
    assert (of_fake > 0).all()
    (of_made,) = torch.autograd.grad(loss.generator(fake), fake)
    assert (of_made < 0).all()


def test_the_hinge_loss_is_zero_beyond_its_margin():
    loss = Hinge()
    real, fake = torch.tensor([1.5], requires_grad=True), torch.tensor([-1.5], requires_grad=True)
    assert [
        gradient.item()
        for gradient in torch.autograd.grad(loss.discriminator(real, fake), [real, fake])
    ] == [0, 0]


def linear_scores(images: Tensor) -> Tensor:
    """A gradient of 3 at one pixel and 4 at another has norm 5."""
    return 3 * images[:, 0, 0, 0] + 4 * images[:, 0, 1, 1]


def test_gradient_penalties_of_a_linear_function():
    real, fake = torch.rand(2, 4, 1, 2, 2)
    assert gradient_penalty(linear_scores, real, fake).item() == pytest.approx((5 - 1) ** 2)
    assert r1_penalty(linear_scores, real).item() == pytest.approx(25 / 2)


@pytest.mark.parametrize("penalty", ["gradient", "r1"])
def test_a_gradient_penalty_is_trained(penalty: str):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    real, fake = torch.rand(2, 16, 1, 2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def measured() -> Tensor:
        def scores(images: Tensor) -> Tensor:
            return network(images).flatten()

        return (
            gradient_penalty(scores, real, fake)
            if penalty == "gradient"
            else r1_penalty(scores, real)
        )

    before = measured().item()
    for _ in range(20):
        optimizer.zero_grad()
        measured().backward()
        optimizer.step()
    assert measured().item() < 0.8 * before


def test_the_gradient_penalty_of_wgan_gp_is_weighted():
    real, fake = torch.rand(2, 4, 1, 2, 2)
    loss = Wasserstein(gradient_penalty_weight=10.0)
    assert loss.penalty(linear_scores, real, fake).item() == pytest.approx(10 * (5 - 1) ** 2)
    for without in (Wasserstein(gradient_penalty_weight=0.0), Hinge()):
        assert not without.penalizes_gradients
        assert without.penalty(linear_scores, real, fake).item() == 0


def test_a_label_of_real_images_below_a_half_is_refused():
    with pytest.raises(
        ArgumentError, match=r"real_label=0\.2: type a number above 0\.5, at most 1"
    ):
        NonSaturating(real_label=0.2)
