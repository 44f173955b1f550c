"""The feature maps of a classifier as a module, with the classifier's keys."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torchvision
from torch import Tensor, fx, nn

from vision_lab.models.dilation import DilatedPool

ACTIVATIONS = {"relu", "silu", "hardswish", "gelu"}


class Tracer(fx.Tracer):
    """Traces a forward pass down to the layers of torch and torchvision."""

    def __init__(self) -> None:
        super().__init__(autowrap_modules=(math, torchvision.ops))  # type: ignore[arg-type]

    def is_leaf_module(
        self,
        m: nn.Module,
        module_qualified_name: str,
    ) -> bool:
        if isinstance(m, DilatedPool) or m.__module__.startswith("torchvision.ops"):
            return True
        return super().is_leaf_module(m, module_qualified_name)


class TrainEvalGraphs:
    """The forward passes of a classifier in evaluation and in training, which may differ.

    Args:
        classifier: the classifier to trace.
    """

    def __init__(self, classifier: nn.Module) -> None:
        flags = {module: module.training for module in classifier.modules()}
        self.classifier = classifier
        self.graphs = [Tracer().trace(classifier.train(training)) for training in (False, True)]
        for module, flag in flags.items():  # frozen modules stay in evaluation mode
            module.training = flag

    def feature_maps(self, names: Sequence[str]) -> FeatureMaps:
        """Build a module that returns the results of some submodules.

        Args:
            names: names of the submodules.
        """
        module = FeatureMaps([self._cut(graph, names) for graph in self.graphs])
        module.training = self.classifier.training
        return module

    def _cut(
        self,
        graph: fx.Graph,
        names: Sequence[str],
    ) -> fx.GraphModule:
        """Return the part of a forward pass that computes some feature maps."""
        cut = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        cut.graph_copy(graph, copies)
        cut.output({name: copies[_find_last_node(graph, name)] for name in names})
        module = fx.GraphModule(self.classifier, cut)
        module.graph.eliminate_dead_code()
        return fx.GraphModule(self.classifier, module.graph)  # without modules that are not used


class FeatureMaps(nn.Module):
    """Maps (N, C, H, W) to {name: (N, channels, H / stride, W / stride)}.

    Each call selects one of the two graphs. (torchvision's extractor selects it in ``train()``,
    which Lightning does not call when it returns from validation, and it cannot be copied.)

    Args:
        graphs: the graph for evaluation and that for training.
    """

    def __init__(self, graphs: Sequence[fx.GraphModule]) -> None:
        super().__init__()
        # Only the functions are kept: called with this module, they use its layers, including those
        # that have replaced others since.
        self._forwards = tuple(type(graph).forward for graph in graphs)
        for graph in graphs[::-1]:
            for name, layer in graph.named_modules():
                _add_submodule(self, name, layer)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self._forwards[self.training](self, images)


def _add_submodule(
    network: nn.Module,
    name: str,
    layer: nn.Module,
) -> None:
    """Add a layer under its dotted name, unless there is one already."""
    parent, _, child = name.rpartition(".")
    if child and child not in network.get_submodule(parent)._modules:
        network.get_submodule(parent).add_module(child, layer)


def _find_last_node(graph: fx.Graph, name: str) -> fx.Node:
    """Return the node that completes the result of a submodule.

    It includes the activation after it, which some networks (DenseNet) apply outside any module.
    """
    nodes = list(graph.nodes)
    last = 0
    for index, node in enumerate(nodes):
        if name in _get_modules(node):
            last = index
    following = nodes[last + 1]
    is_function = following.op == "call_function" and not _get_modules(following)
    if is_function and following.target.__name__ in ACTIVATIONS:
        return following
    return nodes[last]


def _get_modules(node: fx.Node) -> set[str]:
    """Return the names of the modules in whose forward pass a node was traced."""
    names = {name for name, _ in node.meta.get("nn_module_stack", {}).values()}
    if node.op == "call_module":
        names.add(str(node.target))
    return names
