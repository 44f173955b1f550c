"""``head=none``: for models that need no head."""

from torch import nn

from vision_lab.core.spec import DataSpec


def identity(pair: nn.Module, spec: DataSpec) -> nn.Module:
    """Return the model unchanged.

    Args:
        pair: the model, such as a generator with a discriminator.
        spec: spec of the data.
    """
    return pair
