"""A classifier's maps as a module of its own, under the classifier's keys."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torchvision
from torch import Tensor, fx, nn

from vision_lab.models.dilation import DilatedPool

ACTIVATIONS = {"relu", "silu", "hardswish", "gelu"}


class Tracer(fx.Tracer):
    """Follows a forward pass down to the layers of torch and torchvision."""

    def __init__(self) -> None:
        super().__init__(autowrap_modules=(math, torchvision.ops))  # type: ignore[arg-type]  # takes several

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = isinstance(m, DilatedPool) or m.__module__.startswith("torchvision.ops")
        return ours or super().is_leaf_module(m, module_qualified_name)


class TrainEvalGraphs:
    """A classifier's forward pass in training and in evaluation, which may differ, as graphs to be cut off anywhere."""

    def __init__(self, classifier: nn.Module) -> None:
        modes = {module: module.training for module in classifier.modules()}
        self.classifier = classifier
        self.graphs = [Tracer().trace(classifier.train(training)) for training in (False, True)]
        for module, training in modes.items():  # parts that are frozen stay in evaluation mode
            module.training = training

    def maps(self, names: Sequence[str]) -> FeatureMaps:
        """The maps that the modules of these names make."""
        made = FeatureMaps([self._cut(graph, names) for graph in self.graphs])
        made.training = self.classifier.training
        return made

    def _cut(self, whole: fx.Graph, names: Sequence[str]) -> fx.GraphModule:
        """The part of a forward pass that leads to the maps, with the modules it needs."""
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        graph.graph_copy(whole, copies)
        graph.output({name: copies[_last_node(whole, name)] for name in names})
        with_all = fx.GraphModule(self.classifier, graph)
        with_all.graph.eliminate_dead_code()
        return fx.GraphModule(self.classifier, with_all.graph)


class FeatureMaps(nn.Module):
    """(N, C, H, W) -> {name: (N, channels, H / stride, W / stride)}.

    Which of the two graphs runs is decided by each call: when it comes back from validation, Lightning sets
    ``training`` and does not call ``train()``, on which torchvision's extractor relies. Nor can that be copied.

    Args:
        graphs: of evaluation and of training.
    """

    def __init__(self, graphs: Sequence[fx.GraphModule]) -> None:
        super().__init__()
        # The functions alone: run on this module they find its own layers, those too that replaced others since.
        self._passes = tuple(type(graph).forward for graph in graphs)
        for graph in graphs[::-1]:
            for name, layer in graph.named_modules():
                _attach_module(self, name, layer)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self._passes[self.training](self, images)


def _attach_module(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer where a graph keeps it, if there is none yet."""
    parent, _, child = name.rpartition(".")
    if child and child not in network.get_submodule(parent)._modules:
        network.get_submodule(parent).add_module(child, layer)


def _last_node(graph: fx.Graph, name: str) -> fx.Node:
    """The node at which a module's map is complete."""
    nodes = list(graph.nodes)
    last = max(place for place, node in enumerate(nodes) if name in _modules_around(node))
    # After its activation, which some networks (DenseNet) apply outside of any module.
    after = nodes[last + 1]
    active = (
        after.op == "call_function"
        and not _modules_around(after)
        and after.target.__name__ in ACTIVATIONS
    )
    return after if active else nodes[last]


def _modules_around(node: fx.Node) -> set[str]:
    """The names of the modules in whose forward pass a node was made."""
    stack = node.meta.get("nn_module_stack", {})
    return {name for name, _ in stack.values()} | (
        {str(node.target)} if node.op == "call_module" else set()
    )
