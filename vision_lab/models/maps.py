"""A classifier's maps as a module of its own, under the classifier's keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from vision_lab.models.dilation import WidePool

ACTIVATIONS = {"relu", "silu", "hardswish", "gelu", "act"}

_TRACING: dict[str, Any] = {"suppress_diff_warning": True, "tracer_kwargs": {"leaf_modules": [WidePool]}}


class Maps(nn.Module):
    """(N, C, H, W) -> {name: (N, channels, H / stride, W / stride)}, of the modules of these names.

    torchvision's extractor changes from the graph of training to that of evaluation in ``train()``, which Lightning
    does not call when it comes back from validation, and it cannot be copied. Here the graph is chosen by each call.
    """

    def __init__(self, classifier: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        modes = {module: module.training for module in classifier.modules()}
        nodes, _ = get_graph_node_names(classifier, **_TRACING)
        wanted = {_last_node(nodes, name): name for name in names}
        extractor = create_feature_extractor(classifier, wanted, **_TRACING)
        for module, training in modes.items():  # tracing leaves frozen modules in training mode
            module.training = training
        graphs = [fx.GraphModule(extractor, graph) for graph in (extractor.eval_graph, extractor.train_graph)]
        self._graphs = tuple(graphs)  # in a tuple: their modules are this one's, once
        for name, child in graphs[True].named_children():
            self.add_module(name, child)
        self.training = classifier.training

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self._graphs[self.training](images)


def _last_node(nodes: Sequence[str], name: str) -> str:
    """The node of a trace at which a module's map is complete."""
    last = max(place for place, node in enumerate(nodes) if node == name or node.startswith(f"{name}."))
    # After its activation, which some networks (DenseNet) apply outside the module.
    following = nodes[last + 1 : last + 2]
    active = [node for node in following if node.rsplit(".", 1)[-1].rstrip("_0123456789") in ACTIVATIONS]
    return active[0] if active and "." not in active[0] else nodes[last]
