"""Properties of a network, found by running it on the meta device in well under a second."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.protocols import Stage
from vision_lab.core.text import first_line

FINE_SIZE, COARSE_SIZE = 256, 512
"""Two image sizes in pixels, from which the stride of a feature map is computed."""

FORWARD_ERRORS = (RuntimeError, ValueError, AssertionError, TypeError, LookupError)
"""Exceptions by which networks reject images."""

MAX_SEARCHED_SIZE = 1024
"""Largest image size that ``min_image_size`` tries, in pixels."""


@contextmanager
def forward_hooks(
    modules: dict[str, nn.Module], hook: Callable[[str, tuple[Any, ...], Any], Any]
) -> Iterator[None]:
    """Call a hook after the forward pass of each module, within this context.

    Args:
        modules: modules by name.
        hook: called with the name, the inputs and the output of a module; what it returns, unless
            it is None, replaces the output.
    """
    handles = []
    for name, module in modules.items():
        handles.append(
            module.register_forward_hook(
                lambda _, inputs, output, name=name: hook(name, inputs, output)
            )
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def meta_copy(network: nn.Module) -> nn.Module:
    """Copy a network to the meta device, without copying its tensors, in evaluation mode.

    Batch norm, which takes most of the time on this device but changes no shapes, is left out.
    """
    memo: dict[int, Any] = {}  # makes deepcopy use these instead of copying
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            memo[id(module)] = nn.Identity()
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.to("meta"), parameter.requires_grad)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return deepcopy(network, memo).eval()


def find_stages(classifier: nn.Module, *, channels: int) -> tuple[Stage, ...]:
    """Find the feature maps of a classifier: the last one of each stride, fine to coarse.

    Plain containers are opened; every other module is one unit. The classification layer, which has
    the last parameter, is left out. The stride is exact for padded and unpadded convolutions.

    Args:
        classifier: the classifier.
        channels: number of image channels.

    Raises:
        ConfigurationError: if there are none, as in vision transformers.
    """
    copy = meta_copy(classifier)
    units = dict(_list_units(copy))
    shapes: dict[str, list[tuple[int, int]]] = {}

    def record(
        name: str,
        _: tuple[Any, ...],
        output: Any,
    ) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            shapes.setdefault(name, []).append((output.shape[1], output.shape[2]))

    with forward_hooks(units, record):
        for size in (FINE_SIZE, COARSE_SIZE):
            try:
                copy(torch.empty(2, channels, size, size, device="meta"))
            except FORWARD_ERRORS as error:
                raise ConfigurationError(
                    "this network has no feature maps for heads, because it does not run at "
                    f"{size}x{size} pixels ({first_line(error)}): choose another model, or classify"
                ) from error
    stages: dict[int, Stage] = {}
    for name, recorded in shapes.items():
        (width, fine), (other_width, coarse) = recorded[0], recorded[-1]
        # The sizes are equal after global pooling; the widths differ where channels are last.
        if coarse > fine and width == other_width:
            stride = round((COARSE_SIZE - FINE_SIZE) / (coarse - fine))
            stages[stride] = Stage(name, width, stride)
    if not stages:
        raise ConfigurationError(
            "this network has no feature maps for heads, (N, C, H, W) between its layers: choose "
            "another model, or classify"
        )
    return tuple(stages[stride] for stride in sorted(stages))


def min_image_size(
    network: nn.Module,
    *,
    channels: int,
    start: int,
) -> int | None:
    """Find the smallest square image on which a network can be trained.

    Args:
        network: the network.
        channels: number of image channels.
        start: smallest size to try, in pixels.

    Returns:
        The size in pixels; None if it is larger than ``MAX_SEARCHED_SIZE``.
    """
    copy = meta_copy(network)
    too_small, sufficient = start - 1, MAX_SEARCHED_SIZE
    if forward_error(copy, channels=channels, size=(sufficient, sufficient)):
        return None
    while sufficient - too_small > 1:
        middle = (too_small + sufficient) // 2
        if forward_error(copy, channels=channels, size=(middle, middle)):
            too_small = middle
        else:
            sufficient = middle
    return sufficient


def forward_error(
    network: nn.Module,
    *,
    channels: int,
    size: tuple[int, int],
) -> str | None:
    """Return why a network cannot be trained on images of a size, or None if it can.

    It is run in training mode, in which auxiliary classifiers require larger images than the rest.

    Args:
        network: the network.
        channels: number of image channels.
        size: (height, width) in pixels.
    """
    try:
        meta_copy(network).train()(torch.empty(2, channels, *size, device="meta"))
    except FORWARD_ERRORS as error:  # such as a kernel larger than its input
        return first_line(error)
    return None


def _list_units(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that a forward pass runs, in order, without the classification layer."""
    classifier = "" if prefix else _find_classifier(module)
    for name, child in module.named_children():
        if name == classifier:
            continue
        if type(child) in (nn.Sequential, nn.ModuleList):
            yield from _list_units(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _find_classifier(module: nn.Module) -> str:
    """Return the name of the submodule with the last parameter."""
    *_, (name, _) = module.named_parameters()
    return name.split(".")[0]
