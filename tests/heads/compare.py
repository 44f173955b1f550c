"""Comparison of a network with torchvision's."""

import torch
from torch import nn


def assert_same_network(made: nn.Module, published: nn.Module) -> None:
    """Assert equal keys and outputs, in evaluation and in training."""
    assert list(made.state_dict()) == list(published.state_dict())
    made.load_state_dict(published.state_dict())
    images = torch.rand(2, 3, 65, 90)
    with torch.no_grad():
        assert torch.equal(made.eval()(images), published.eval()(images)["out"])
        torch.manual_seed(1)
        main, auxiliary = made.train()(images)
        torch.manual_seed(1)
        wanted = published.train()(images)
    assert torch.equal(main, wanted["out"])
    assert torch.equal(auxiliary, wanted["aux"])
