"""Adaptation of a published classifier to small images and other numbers of channels.

Keys stay the same.
"""

from typing import Any

import torch
from torch import Tensor, nn

from vision_lab.models.introspection import FINE_SIZE, forward_hooks, meta_copy

STEM_STRIDE = 4
"""Downsampling of the first layers that is removed for small images."""


def remove_stem_downsampling(classifier: nn.Module) -> None:
    """Remove the first fourfold downsampling, which is made for images of 224 pixels, in place.

    A strided convolution gets a stride of 1 and, if it is larger than 3x3, becomes 3x3 with new
    initial weights (the only shape that changes); a pooling layer becomes an identity. This is what
    section 4.2 of He 2015 does for 32 pixels, and others do for other networks.
    """
    remaining = STEM_STRIDE
    for name, factor in _find_downsampling(classifier):
        if remaining < 2:
            break
        layer = classifier.get_submodule(name)
        is_conv = isinstance(layer, nn.Conv2d)
        replacement = _without_stride(layer) if is_conv else nn.Identity()
        replace_module(classifier, name, replacement)
        remaining //= factor


def set_in_channels(classifier: nn.Module, channels: int) -> None:
    """Set the number of image channels, with new initial weights if it changes, in place.

    Networks without convolutions are constructed for their number of channels.

    Args:
        classifier: the classifier.
        channels: number of image channels.
    """
    found = first_convolution(classifier)
    if found is None:
        return
    name, first = found
    if first.in_channels != channels:
        replace_module(classifier, name, _similar_conv(first, in_channels=channels))


def first_convolution(classifier: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Return the name and the convolution that is applied to the image; None if there is none."""
    for name, module in classifier.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    return None


def adapt_input_kernel(kernel: Tensor, channels: int) -> Tensor:
    """Adapt pretrained kernels to another number of image channels.

    For one channel they are summed: the response to a gray image stays that to three equal
    channels. For more channels they are repeated in turn, and scaled to keep the size of responses.

    Args:
        kernel: (out_channels, in_channels, h, w).
        channels: number of image channels.

    Returns:
        (out_channels, channels, h, w).
    """
    in_channels = kernel.shape[1]
    if channels == in_channels:
        return kernel
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    repeated = [index % in_channels for index in range(channels)]
    return kernel[:, repeated] * (in_channels / channels)


def replace_module(
    network: nn.Module,
    name: str,
    module: nn.Module,
) -> None:
    """Replace a submodule, in place.

    Args:
        network: the network.
        name: dotted name of the submodule.
        module: its replacement.
    """
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def _find_downsampling(classifier: nn.Module) -> list[tuple[str, int]]:
    """Return the layers that downsample, in the order they run, each with its factor."""
    copy = meta_copy(classifier)
    found = first_convolution(copy)
    if found is None:
        return []
    _, first = found
    kinds = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d
    layers: dict[str, nn.Module] = {}
    for name, module in copy.named_modules():
        if isinstance(module, kinds):
            layers[name] = module
    downsampling: list[tuple[str, int]] = []

    def record(
        name: str,
        inputs: tuple[Any, ...],
        output: Tensor,
    ) -> None:
        factor = round(inputs[0].shape[-1] / output.shape[-1])
        if factor > 1:
            downsampling.append((name, factor))

    with forward_hooks(layers, record):
        copy(torch.empty(2, first.in_channels, FINE_SIZE, FINE_SIZE, device="meta"))
    return downsampling


def _without_stride(layer: nn.Module) -> nn.Conv2d:
    assert isinstance(layer, nn.Conv2d)
    if layer.kernel_size == (3, 3):
        layer.stride, layer.padding = (1, 1), (1, 1)
        return layer
    return _similar_conv(
        layer,
        kernel_size=3,
        stride=1,
        padding=1,
    )


def _similar_conv(layer: nn.Conv2d, **overrides: Any) -> nn.Conv2d:
    """Create a convolution with the settings of another one, and similar initial weights.

    Their standard deviation is that of the other layer's weights, adjusted for the size of the
    kernel, whatever rule its paper initializes them with.
    """
    arguments: dict[str, Any] = {
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
        "bias": layer.bias is not None,
        "padding_mode": layer.padding_mode,
        "device": layer.weight.device,
    }
    new = nn.Conv2d(**(arguments | overrides))
    fan_in_ratio = layer.weight[0].numel() / new.weight[0].numel()
    std = layer.weight.std() * fan_in_ratio**0.5
    with torch.no_grad():
        new.weight.normal_().mul_(std)
    if new.bias is not None and layer.bias is not None:
        new.bias.data.copy_(layer.bias.data)
    return new
