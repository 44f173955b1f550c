"""Any classifier as a backbone: fitted to its data, with learnt weights, frozen as far as asked, seen as maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Literal

import torch
from torch import nn

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.protocols import LoadedWeights, Stage
from vision_lab.core.spec import DataSpec
from vision_lab.models import introspection
from vision_lab.models.dilation import dilate
from vision_lab.models.feature_maps import TrainEvalGraphs
from vision_lab.models.stem import remove_stem_downsampling, set_in_channels
from vision_lab.models.weights import load

SMALL_IMAGE_SIZE = 64
"""Below this many pixels, ``stem: auto`` undoes the downsampling that is meant for 224."""


class ClassifierBackbone:
    """A classifier and what the heads want to know of it; see the Protocol ``Backbone``."""

    def __init__(self, network: nn.Module, *, channels: int, loaded: LoadedWeights | None) -> None:
        self.network = network
        self.channels = channels
        self.loaded = loaded

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Its maps from the finest to the coarsest, found by running it on the meta device."""
        return introspection.stages(self.network, channels=self.channels)

    def features(self, names: Sequence[str], *, output_stride: int | None = None) -> nn.Module:
        """A module (N, C, H, W) -> {name: (N, channels, H / stride, W / stride)}; keys stay the classifier's.

        Args:
            names: of stages.
            output_stride: no map's stride is larger; those that would be are dilated. This changes the classifier.

        Raises:
            ConfigurationError: where the network steps by other means than modules, so that it cannot be dilated.
        """
        if output_stride is not None:
            if output_stride not in (8, 16, 32):
                raise ConfigurationError(
                    f"head.output_stride={output_stride}: type 8, 16, 32 or null"
                )
            changed = dilate(self.network, channels=self.channels, output_stride=output_stride)
            size = (introspection.COARSE, introspection.COARSE)
            if changed and introspection.forward_error(
                self.network, channels=self.channels, size=size
            ):
                raise ConfigurationError(
                    f"head.output_stride={output_stride} cannot be had of this model, some of whose steps are no "
                    "layers of their own: type head.output_stride=null, or another model"
                )
        return self._traces.maps(names)

    @cached_property
    def _traces(self) -> TrainEvalGraphs:
        """A dilated layer is at the place of the one before: traces stay right."""
        return TrainEvalGraphs(self.network)


def build_backbone(
    spec: DataSpec,
    *,
    network: Callable[..., nn.Module],
    stem: Literal["auto", "imagenet", "small"],
    weights: str | None,
    freeze: str | None,
) -> ClassifierBackbone:
    """Make a backbone for the data.

    Args:
        spec: the pictures it is for.
        classifier: makes the paper's network from ``num_classes``.
        stem: ``imagenet`` as published; ``small`` without its first fourfold downsampling; ``auto``: small below 64
            pixels, unless learnt weights are to fit.
        weights: ``imagenet``, a name in torchvision's enumeration, a file, or None for random ones.
        freeze: ``trunk`` keeps all but the layer of the classes as it is, batch-norm statistics included; the name of a
            stage, all up to that stage.

    Raises:
        ConfigurationError: where the pictures are too small, or the weights or the stage do not fit.
    """
    _check_stem(stem)
    network = _build_network(
        network, spec, small=_is_small(stem, min(spec.image_size), weights=weights)
    )
    name = _name(network)
    refusal = introspection.forward_error(network, channels=spec.channels, size=spec.image_size)
    if refusal:
        typed = _suggest_sizes(network, spec, stem=stem, weights=weights)
        height, width = spec.image_size
        raise ConfigurationError(
            f"{name} is not made for pictures of {height}x{width} pixels: type {typed}"
            if typed
            else f"{name} takes no pictures of {spec.channels} channels ({refusal}): check model.network"
        )
    class_layers = _class_dependent_keys(network, network) if weights or freeze else set()
    loaded = (
        load(network, weights, constructor=name, class_layers=class_layers) if weights else None
    )
    made = ClassifierBackbone(network, channels=spec.channels, loaded=loaded)
    if freeze:
        _freeze(made, freeze, class_layers=class_layers)
    return made


def _check_stem(choice: str) -> None:
    if choice not in ("auto", "imagenet", "small"):
        raise ConfigurationError(f"model.stem={choice}: type auto, imagenet or small")


def _is_small(stem: str, size: int, *, weights: str | None) -> bool:
    return stem == "small" or (stem == "auto" and weights is None and size < SMALL_IMAGE_SIZE)


def _build_network(
    classifier: Callable[..., nn.Module], spec: DataSpec, *, small: bool
) -> nn.Module:
    """The paper's network for the data's classes and channels, with or without its first downsampling."""
    network = classifier(num_classes=spec.num_classes)
    set_in_channels(network, spec.channels)
    if small:
        remove_stem_downsampling(network)
        if introspection.forward_error(
            network, channels=spec.channels, size=(introspection.COARSE, introspection.COARSE)
        ):
            raise ConfigurationError(
                "model.stem=small cannot be had: the network's first downsampling lies in its residual blocks; "
                "type model.stem=imagenet"
            )
    return network


def _suggest_sizes(
    classifier: Callable[..., nn.Module], spec: DataSpec, *, stem: str, weights: str | None
) -> str:
    """What to type for the smallest pictures that the network takes, with each stem that may be had; or nothing."""
    at_least = min(spec.image_size)
    typed = []
    for choice in ("imagenet", "small") if stem == "auto" and weights is None else (stem,):
        with torch.device("meta"):
            network = _build_network(classifier, spec, small=choice == "small")
        size = introspection.min_image_size(network, channels=spec.channels, start=at_least)
        if size is not None:
            words = [f"data.spec.image_size=[{size},{size}]"] if size > at_least else []
            agrees = stem != "auto" or _is_small("auto", size, weights=weights) == (
                choice == "small"
            )
            typed.append(" ".join(words if agrees else [*words, f"model.stem={choice}"]))
    return ", or ".join(typed)


def _class_dependent_keys(classifier: Callable[..., nn.Module], network: nn.Module) -> set[str]:
    """The parameters whose shapes follow the number of classes, found by asking for one more class."""
    shapes = []
    for count in (2, 3):
        with torch.device("meta"):
            shapes.append(
                {
                    key: value.shape
                    for key, value in classifier(num_classes=count).state_dict().items()
                }
            )
    return {key for key in network.state_dict() if shapes[0].get(key) != shapes[1].get(key)}


def _freeze(made: ClassifierBackbone, until: str, *, class_layers: set[str]) -> None:
    """Take parameters from training; put modules all of whose parameters are frozen into evaluation mode for good."""
    network = made.network
    names = [name for name, _ in network.named_parameters()]
    if until == "backbone":
        frozen = {name for name in names if name not in class_layers}
    else:
        stages = [stage.name for stage in made.stages]
        if not any(_is_submodule(stage, until) for stage in stages):
            raise ConfigurationError(
                f"model.freeze={until}: type trunk, or one of the stages {', '.join(stages)}"
            )
        # Modules are registered in the order they run; a stage may be an activation without parameters of its own.
        modules = [name for name, _ in network.named_modules()]
        last = max(place for place, name in enumerate(modules) if _is_submodule(name, until))
        frozen = {name for name in names if name.rpartition(".")[0] in modules[: last + 1]}
    parameters = dict(network.named_parameters())
    for name in frozen:
        parameters[name].requires_grad_(False)
    for name, module in network.named_modules():
        inside = [parameter for parameter in names if _is_submodule(parameter, name)]
        if inside and all(parameter in frozen for parameter in inside):
            module.eval()


def _is_submodule(name: str, module: str) -> bool:
    """Whether a dotted name is a module's, or lies below it; all lie below the nameless whole."""
    return not module or name == module or name.startswith(f"{module}.")


def _name(classifier: Callable[..., nn.Module]) -> str:
    made_by = classifier.func if isinstance(classifier, partial) else classifier
    return str(getattr(made_by, "__name__", made_by))
