"""Any classifier as a backbone: adapted to the data, pretrained, partly frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Literal

import torch
from torch import nn

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.checking import check_arguments
from vision_lab.core.protocols import LoadedWeights, Stage
from vision_lab.core.spec import DataSpec
from vision_lab.models import introspection
from vision_lab.models.dilation import dilate
from vision_lab.models.feature_maps import TrainEvalGraphs
from vision_lab.models.stem import remove_stem_downsampling, set_in_channels
from vision_lab.models.weights import load

SMALL_IMAGE_SIZE = 64
"""Image size in pixels below which ``stem: auto`` removes the first downsampling."""

OUTPUT_STRIDES = (8, 16, 32)

_LARGE_SIZE = (introspection.COARSE_SIZE, introspection.COARSE_SIZE)

NetworkFactory = Callable[..., nn.Module]
"""Creates a classifier from ``num_classes``."""


class ClassifierBackbone:
    """A classifier as a ``Backbone``.

    Args:
        network: the classifier.
        channels: number of image channels.
        loaded: the result of loading pretrained weights; None for random initialization.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        channels: int,
        loaded: LoadedWeights | None,
    ) -> None:
        self.network = network
        self.channels = channels
        self.loaded = loaded

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The feature maps from the finest to the coarsest, found on the meta device."""
        return introspection.find_stages(self.network, channels=self.channels)

    def features(
        self,
        names: Sequence[str],
        *,
        output_stride: int | None = None,
    ) -> nn.Module:
        """Build a module that returns feature maps.

        Args:
            names: names of the stages.
            output_stride: maximum stride; larger ones are replaced by dilation, in place.

        Returns:
            A module (N, C, H, W) -> {name: (N, channels, H / stride, W / stride)}, with the
            classifier's keys.

        Raises:
            ConfigurationError: if the network cannot be dilated, because it downsamples by other
                means than modules.
        """
        if output_stride is not None:
            self._dilate(output_stride)
        return self._graphs.feature_maps(names)

    def _dilate(self, output_stride: int) -> None:
        if output_stride not in OUTPUT_STRIDES:
            raise ArgumentError("output_stride", output_stride, "8, 16, 32 or null")
        network, channels = self.network, self.channels
        is_changed = dilate(network, channels=channels, output_stride=output_stride)
        if is_changed and introspection.forward_error(network, channels=channels, size=_LARGE_SIZE):
            needed = (
                "null, or choose another model: this one cannot be dilated, because some of its "
                "downsampling is not in layers"
            )
            raise ArgumentError("output_stride", output_stride, needed)

    @cached_property
    def _graphs(self) -> TrainEvalGraphs:
        """The traced classifier, which stays valid: dilated layers keep their names."""
        return TrainEvalGraphs(self.network)


@check_arguments
def build_backbone(
    spec: DataSpec,
    *,
    network: NetworkFactory,
    stem: Literal["auto", "imagenet", "small"] = "auto",
    weights: str | None = None,
    freeze: str | None = None,
) -> ClassifierBackbone:
    """Build a backbone for the data.

    Args:
        spec: spec of the data.
        network: creates the paper's classifier from ``num_classes``.
        stem: ``imagenet`` as published; ``small`` without the first fourfold downsampling; ``auto``
            for small below 64 pixels, unless there are pretrained weights.
        weights: ``imagenet``, a name in torchvision's enumeration, or a file; None for random ones.
        freeze: ``backbone`` to freeze all layers but the classification layer, including
            batch-norm statistics; or the name of a stage, to freeze all layers up to it.

    Raises:
        ArgumentError: if images are too small, or ``stem`` or ``freeze`` does not fit.
        ConfigurationError: if the weights do not fit.
    """
    if stem not in ("auto", "imagenet", "small"):
        raise ArgumentError("stem", stem, "auto, imagenet or small")
    is_small = _is_small_stem(stem, min(spec.image_size), weights=weights)
    classifier = _build_classifier(network, spec, is_small=is_small)
    name = _get_name(network)
    error = introspection.forward_error(classifier, channels=spec.channels, size=spec.image_size)
    if error:
        sizes = _suggest_sizes(network, spec, stem=stem, weights=weights)
        if not sizes:
            needed = f"another size: {name} does not run at it ({error})"
            raise ArgumentError("image_size", list(spec.image_size), needed)
        needed = f"{sizes}: {name} does not support smaller images"
        raise ArgumentError("image_size", list(spec.image_size), needed)
    class_layers: set[str] = set()
    if weights or freeze:
        class_layers = _find_class_layers(network, classifier)
    loaded = None
    if weights:
        loaded = load(classifier, weights, constructor=name, class_layers=class_layers)
    backbone = ClassifierBackbone(classifier, channels=spec.channels, loaded=loaded)
    if freeze:
        _freeze(backbone, freeze, class_layers=class_layers)
    return backbone


def _is_small_stem(
    stem: str,
    size: int,
    *,
    weights: str | None,
) -> bool:
    return stem == "small" or (stem == "auto" and weights is None and size < SMALL_IMAGE_SIZE)


def _build_classifier(
    network: NetworkFactory,
    spec: DataSpec,
    *,
    is_small: bool,
) -> nn.Module:
    """Build the classifier for the classes and channels of the data."""
    classifier = network(num_classes=spec.num_classes)
    set_in_channels(classifier, spec.channels)
    if is_small:
        remove_stem_downsampling(classifier)
        if introspection.forward_error(classifier, channels=spec.channels, size=_LARGE_SIZE):
            needed = "imagenet: the first downsampling of this network is in residual blocks"
            raise ArgumentError("stem", "small", needed)
    return classifier


def _suggest_sizes(
    network: NetworkFactory, spec: DataSpec, *, stem: str, weights: str | None
) -> str:
    """Return the smallest supported images with each possible stem, as one types them."""
    current_size = min(spec.image_size)
    is_free = stem == "auto" and weights is None
    suggestions = []
    for option in ("imagenet", "small") if is_free else (stem,):
        with torch.device("meta"):
            classifier = _build_classifier(network, spec, is_small=option == "small")
        size = introspection.min_image_size(classifier, channels=spec.channels, start=current_size)
        if size is None:
            continue
        words = [f"[{size},{size}]"]
        is_auto_small = _is_small_stem("auto", size, weights=weights)
        if stem == "auto" and is_auto_small != (option == "small"):
            words.append(f"model.stem={option}")
        suggestions.append(" ".join(words))
    return ", or ".join(suggestions)


def _find_class_layers(network: NetworkFactory, classifier: nn.Module) -> set[str]:
    """Return the parameters whose shapes depend on the number of classes.

    They are found by comparing two classifiers that differ in it.
    """
    shapes = []
    for num_classes in (2, 3):
        with torch.device("meta"):
            state = network(num_classes=num_classes).state_dict()
        shapes.append({key: value.shape for key, value in state.items()})
    class_layers = set()
    for key in classifier.state_dict():
        if shapes[0].get(key) != shapes[1].get(key):
            class_layers.add(key)
    return class_layers


def _freeze(
    backbone: ClassifierBackbone,
    until: str,
    *,
    class_layers: set[str],
) -> None:
    """Freeze parameters, and put modules of frozen parameters into evaluation mode for good."""
    network = backbone.network
    names = [name for name, _ in network.named_parameters()]
    if until == "backbone":
        frozen = set()
        for name in names:
            if name not in class_layers:
                frozen.add(name)
    else:
        frozen = _find_parameters_until(backbone, until)
    parameters = dict(network.named_parameters())
    for name in frozen:
        parameters[name].requires_grad_(False)
    for module_name, module in network.named_modules():
        own = []
        for name in names:
            if _is_in_module(name, module_name):
                own.append(name)
        if own and all(name in frozen for name in own):
            module.eval()


def _find_parameters_until(backbone: ClassifierBackbone, until: str) -> set[str]:
    """Return the parameters of all modules up to a stage."""
    network = backbone.network
    stages = [stage.name for stage in backbone.stages]
    if not any(_is_in_module(stage, until) for stage in stages):
        raise ArgumentError("freeze", until, f"backbone, or one of the stages {', '.join(stages)}")
    # Modules are registered in the order they run; a stage may be an activation, which has no
    # parameters of its own.
    modules = [name for name, _ in network.named_modules()]
    last = 0
    for index, name in enumerate(modules):
        if _is_in_module(name, until):
            last = index
    until_stage = set(modules[: last + 1])
    names = [name for name, _ in network.named_parameters()]
    frozen = set()
    for name in names:
        if name.rpartition(".")[0] in until_stage:
            frozen.add(name)
    return frozen


def _is_in_module(name: str, module: str) -> bool:
    """Return whether a dotted name is that of a module or below it; "" is the whole network."""
    return not module or name == module or name.startswith(f"{module}.")


def _get_name(network: NetworkFactory) -> str:
    function = network.func if isinstance(network, partial) else network
    return str(getattr(function, "__name__", function))
