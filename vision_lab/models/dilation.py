"""Dilation of a classifier, which keeps its feature maps fine without changing its keys."""

from __future__ import annotations

from math import log2
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision_lab.models.introspection import COARSE_SIZE, forward_hooks, meta_copy
from vision_lab.models.stem import replace_module

POOLING_LAYERS = nn.MaxPool2d | nn.AvgPool2d


class DilatedPool(nn.Module):
    """Pooling with stride 1 and dilation; borders are padded with their nearest values.

    Args:
        kernel_size: side of the kernel.
        dilation: distance of the pixels in a kernel.
        is_max: whether to return maxima instead of means.
    """

    def __init__(
        self,
        *,
        kernel_size: int,
        dilation: int,
        is_max: bool,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.is_max = is_max

    def forward(self, x: Tensor) -> Tensor:
        padding = self.dilation * (self.kernel_size - 1)
        before, after = padding // 2, padding - padding // 2
        x = F.pad(x, (before, after, before, after), mode="replicate")
        if self.is_max:
            return F.max_pool2d(x, self.kernel_size, stride=1, dilation=self.dilation)
        # torch's average pooling has no dilation.
        area = self.kernel_size**2
        mean = x.new_full((x.shape[1], 1, self.kernel_size, self.kernel_size), 1 / area)
        return F.conv2d(x, mean, dilation=self.dilation, groups=x.shape[1])


def dilate(
    classifier: nn.Module,
    *,
    channels: int,
    output_stride: int,
) -> bool:
    """Limit the stride of a classifier's feature maps, in place.

    Layers that would exceed it get a stride of 1, and the layers after them are dilated, so that
    their receptive fields stay the same (Chen 2016, section 3.1). This is what torchvision's ResNet
    does with ``replace_stride_with_dilation``, for any network whose strides are in modules.

    Args:
        classifier: the classifier.
        channels: number of image channels.
        output_stride: maximum stride.

    Returns:
        Whether anything was changed.
    """
    is_changed = False
    for name, (before, after) in _layer_strides(classifier, channels=channels).items():
        layer = classifier.get_submodule(name)
        dilation = max(1, before // output_stride)
        exceeds = after > max(before, output_stride)
        if not exceeds and dilation == 1:
            continue
        is_changed = True
        if isinstance(layer, nn.Conv2d):
            _dilate_conv(layer, dilation, remove_stride=exceeds)
        elif isinstance(layer, POOLING_LAYERS):
            kernel_size = layer.kernel_size
            if not isinstance(kernel_size, int):
                kernel_size = kernel_size[0]
            is_max = isinstance(layer, nn.MaxPool2d)
            pool = DilatedPool(
                kernel_size=kernel_size,
                dilation=dilation,
                is_max=is_max,
            )
            replace_module(classifier, name, pool)
    return is_changed


def _layer_strides(classifier: nn.Module, *, channels: int) -> dict[str, tuple[int, int]]:
    """Return the total stride before and after each convolution and pooling, as powers of two."""
    copy = meta_copy(classifier)
    kinds = nn.Conv2d | POOLING_LAYERS
    layers: dict[str, nn.Module] = {}
    for name, module in copy.named_modules():
        if isinstance(module, kinds):
            layers[name] = module
    strides: dict[str, tuple[int, int]] = {}

    def record(
        name: str,
        inputs: tuple[Any, ...],
        output: Tensor,
    ) -> None:
        if output.shape[-1] > 1:  # otherwise it follows global pooling
            before, after = inputs[0].shape[-1], output.shape[-1]
            strides[name] = (_to_stride(before), _to_stride(after))

    with forward_hooks(layers, record):
        copy(torch.empty(2, channels, COARSE_SIZE, COARSE_SIZE, device="meta"))
    return strides


def _to_stride(size: int) -> int:
    return 2 ** round(log2(COARSE_SIZE / size))


def _dilate_conv(
    layer: nn.Conv2d,
    dilation: int,
    *,
    remove_stride: bool,
) -> None:
    """Dilate a convolution, in place; without its stride it keeps the size of the feature map."""
    if remove_stride:
        is_odd = all(side % 2 for side in layer.kernel_size)
        layer.stride = (1, 1)
        layer.padding = "same"
        if is_odd:
            layer.padding = tuple(dilation * (side // 2) for side in layer.kernel_size)
    else:
        assert not isinstance(layer.padding, str)
        layer.padding = tuple(dilation * side for side in layer.padding)
    # Dilation does nothing to a 1x1 kernel, but torch would compute it with other rounding errors.
    layer.dilation = tuple(dilation if side > 1 else 1 for side in layer.kernel_size)
