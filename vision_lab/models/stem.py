"""Fitting a published classifier to other pictures: fewer pixels, another number of channels. Keys stay as they are."""

from typing import Any

import torch
from torch import Tensor, nn

from vision_lab.models.introspection import FINE, forward_hooks, meta_copy


def remove_stem_downsampling(classifier: nn.Module) -> None:
    """Undo the first fourfold downsampling, which is meant for pictures of 224 pixels.

    A strided convolution steps by one pixel and, where it is larger than 3x3, becomes 3x3 (its first weights are drawn
    anew: the only shape that changes); a pooling layer becomes an identity. What He 2015, section 4.2, does by hand for
    32 pixels, and many after it for other networks.
    """
    left = 4
    for name, factor in _downsampling(classifier):
        if left < 2:
            break
        layer = classifier.get_submodule(name)
        replace(
            classifier, name, _stride_one(layer) if isinstance(layer, nn.Conv2d) else nn.Identity()
        )
        left //= factor


def set_in_channels(classifier: nn.Module, channels: int) -> None:
    """Let the first convolution take ``channels`` channels; its weights are drawn anew where that is news to it."""
    name, first = first_convolution(classifier)
    if first.in_channels != channels:
        replace(classifier, name, _similar_conv(first, in_channels=channels))


def first_convolution(classifier: nn.Module) -> tuple[str, nn.Conv2d]:
    """The name and the layer that sees the picture."""
    return next(
        (name, module)
        for name, module in classifier.named_modules()
        if isinstance(module, nn.Conv2d)
    )


def adapt_input_kernel(kernel: Tensor, channels: int) -> Tensor:
    """Learnt kernels (out, in, h, w) for pictures of another number of channels: (out, channels, h, w).

    One channel: the sum over the learnt ones, which answers a grey picture as the old kernel answers its three equal
    channels. More: the learnt ones in turn, scaled so that the answers keep their size.
    """
    old = kernel.shape[1]
    if channels == old:
        return kernel
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    turns = [index % old for index in range(channels)]
    return kernel[:, turns] * (old / channels)


def _downsampling(classifier: nn.Module) -> list[tuple[str, int]]:
    """The convolutions and poolings that make a map smaller, in the order they run, each with its factor."""
    copy = meta_copy(classifier)
    kinds = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d
    layers: dict[str, nn.Module] = {
        name: module for name, module in copy.named_modules() if isinstance(module, kinds)
    }
    found: list[tuple[str, int]] = []

    def see(name: str, inputs: tuple[Any, ...], output: Tensor) -> None:
        factor = round(inputs[0].shape[-1] / output.shape[-1])
        if factor > 1:
            found.append((name, factor))

    _, first = first_convolution(copy)
    with forward_hooks(layers, see):
        copy(torch.empty(2, first.in_channels, FINE, FINE, device="meta"))
    return found


def _stride_one(layer: nn.Conv2d) -> nn.Conv2d:
    if layer.kernel_size == (3, 3):
        layer.stride, layer.padding = (1, 1), (1, 1)
        return layer
    return _similar_conv(layer, kernel_size=3, stride=1, padding=1)


def _similar_conv(layer: nn.Conv2d, **changes: Any) -> nn.Conv2d:
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
    new = nn.Conv2d(**(arguments | changes))
    # Drawn from the spread of the old layer's weights, whatever rule its paper draws them by.
    scale = layer.weight.std() * (layer.weight[0].numel() / new.weight[0].numel()) ** 0.5
    with torch.no_grad():
        new.weight.normal_().mul_(scale)
    if new.bias is not None and layer.bias is not None:
        new.bias.data.copy_(layer.bias.data)
    return new


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
