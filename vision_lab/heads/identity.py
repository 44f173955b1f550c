"""``head=none``: for a model that is a whole network, or a pair of them, by itself."""

from torch import nn

from vision_lab.core.spec import DataSpec


def identity(pair: nn.Module, spec: DataSpec) -> nn.Module:
    """The model as it is."""
    return pair
