"""``head=linear``: the classification layer of the model's own paper."""

from torch import nn

from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec


def linear(backbone: Backbone, spec: DataSpec) -> nn.Module:
    """Return the complete classifier, with its own keys.

    Args:
        backbone: any backbone.
        spec: spec of the data.

    Returns:
        Maps (N, C, H, W) to (N, num_classes) logits. While training, networks with auxiliary
        classifiers (GoogLeNet, Inception) return a tuple, main logits first.
    """
    return backbone.network
