"""Keeping a classifier's maps fine: strides become dilations. Keys and kernels stay as they are."""

from __future__ import annotations

from math import log2
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision_lab.models.introspection import COARSE, forward_hooks, meta_copy
from vision_lab.models.stem import replace

POOLS = nn.MaxPool2d | nn.AvgPool2d


class DilatedPool(nn.Module):
    """Pooling that keeps a map's size, over values ``dilation`` pixels apart; the border is repeated outwards."""

    def __init__(self, *, kernel: int, dilation: int, largest: bool) -> None:
        super().__init__()
        self.kernel = kernel
        self.dilation = dilation
        self.is_max = largest

    def forward(self, x: Tensor) -> Tensor:
        reach = self.dilation * (self.kernel - 1)
        x = F.pad(x, (reach // 2, reach - reach // 2) * 2, mode="replicate")
        if self.is_max:
            return F.max_pool2d(x, self.kernel, stride=1, dilation=self.dilation)
        mean = x.new_full((x.shape[1], 1, self.kernel, self.kernel), 1 / self.kernel**2)
        return F.conv2d(
            x, mean, dilation=self.dilation, groups=x.shape[1]
        )  # torch's average pooling has no dilation


def dilate(classifier: nn.Module, *, channels: int, output_stride: int) -> bool:
    """Let no map of a classifier have a stride above ``output_stride``.

    A layer that would step beyond it moves by one pixel, and the layers behind it reach as far as before by dilation
    (Chen 2016, section 3.1). What torchvision's residual networks do by ``replace_stride_with_dilation``, for any
    network whose steps are modules.

    Returns:
        Whether there was anything to change.
    """
    changed = False
    for name, (before, after) in _layer_strides(classifier, channels=channels).items():
        layer = classifier.get_submodule(name)
        factor = max(1, before // output_stride)
        steps = after > max(before, output_stride)
        if not steps and factor == 1:
            continue
        changed = True
        if isinstance(layer, nn.Conv2d):
            _dilate_conv(layer, factor, same_size=steps)
        elif isinstance(layer, POOLS):
            kernel = (
                layer.kernel_size if isinstance(layer.kernel_size, int) else layer.kernel_size[0]
            )
            wide = DilatedPool(
                kernel=kernel, dilation=factor, largest=isinstance(layer, nn.MaxPool2d)
            )
            replace(classifier, name, wide)
    return changed


def _layer_strides(classifier: nn.Module, *, channels: int) -> dict[str, tuple[int, int]]:
    """layer that could step: picture pixels per map pixel before and after it, rounded to powers of two."""
    copy = meta_copy(classifier)
    layers: dict[str, nn.Module] = {
        name: module
        for name, module in copy.named_modules()
        if isinstance(module, nn.Conv2d | POOLS)
    }
    found: dict[str, tuple[int, int]] = {}

    def see(name: str, inputs: tuple[Any, ...], output: Tensor) -> None:
        if output.shape[-1] > 1:  # one pixel: what was pooled over the whole picture
            before, after = (
                2 ** round(log2(COARSE / tensor.shape[-1])) for tensor in (inputs[0], output)
            )
            found[name] = (before, after)

    with forward_hooks(layers, see):
        copy(torch.empty(2, channels, COARSE, COARSE, device="meta"))
    return found


def _dilate_conv(layer: nn.Conv2d, factor: int, *, same_size: bool) -> None:
    """Dilate a convolution by ``factor``; one that stepped keeps its map's size from now on."""
    if same_size:
        odd = all(side % 2 for side in layer.kernel_size)
        layer.stride = (1, 1)
        layer.padding = tuple(factor * (side // 2) for side in layer.kernel_size) if odd else "same"
    else:
        assert not isinstance(layer.padding, str)
        layer.padding = tuple(factor * side for side in layer.padding)
    # A kernel of one pixel reaches nowhere; to torch it is another convolution all the same, with other last bits.
    layer.dilation = tuple(factor if side > 1 else 1 for side in layer.kernel_size)
