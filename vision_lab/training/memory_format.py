"""The order in memory of images and of what networks compute from them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

MemoryFormat = Literal["auto"] | bool
"""Whether the channels of a pixel are adjacent in memory; "auto": where this is faster."""


def choose_memory_format(
    network: nn.Module,
    *,
    channels_last: MemoryFormat,
    device: torch.device,
    is_half_precision: bool,
) -> torch.memory_format:
    """Choose the memory format of a network.

    The rule depends on the network and the device, not on measurements, so that a run can be
    repeated: channels last for networks with ordinary convolutions, on CPUs (oneDNN's kernels
    need no conversion then) and in half precision on GPUs (neither do those of tensor cores).

    Args:
        network: the network.
        channels_last: the setting.
        device: device of the network.
        is_half_precision: whether the network computes in 16 bits.
    """
    if channels_last == "auto":
        is_faster = device.type == "cpu" or (device.type == "cuda" and is_half_precision)
        channels_last = is_faster and _is_convolutional(network)
    return torch.channels_last if channels_last else torch.contiguous_format


def _is_convolutional(network: nn.Module) -> bool:
    has_convolutions = False
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d):
            return False
        has_convolutions |= isinstance(module, nn.Conv2d) and module.kernel_size != module.stride
    return has_convolutions
