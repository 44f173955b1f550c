"""``head=linear``: the classifier of the model's own paper."""

from torch import nn

from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec


def linear(backbone: Backbone, spec: DataSpec) -> nn.Module:
    """The whole network of the paper, (N, C, H, W) -> (N, num_classes) logits, under its own keys.

    While training, networks with auxiliary classifiers (GoogLeNet, Inception) return a tuple: main first.
    """
    return backbone.network
