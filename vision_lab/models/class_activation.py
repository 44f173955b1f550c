"""Class activation maps: the image regions that support a class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional as F

from vision_lab.core.errors import ConfigurationError
from vision_lab.models.introspection import find_stages, forward_hooks

MIN_SIDE = 7
"""Side of the last feature map of most networks at 224 pixels."""


class ClassActivationMaps:
    """LayerCAM (Jiang 2021) of a feature map of a classifier.

    Each value of the feature map is weighted with its own gradient, as far as that is positive.
    (Grad-CAM weights whole channels, with the mean of their gradients, and is coarser.) It is the
    last feature map of at least ``MIN_SIDE`` x ``MIN_SIDE``, since that of small images has too few
    values; or the finest one.

    Args:
        module: maps images (N, C, H, W) to logits (N, K), or what contains them.
        network: the part of ``module`` that has the feature map.
        channels: number of image channels.
        image_size: (height, width) of the images in pixels.
    """

    def __init__(
        self,
        module: nn.Module,
        network: nn.Module,
        *,
        channels: int,
        image_size: tuple[int, int],
    ) -> None:
        self.module = module
        self.network = network
        self.channels = channels
        self.image_size = image_size

    @cached_property
    def layer(self) -> str | None:
        """Name of the submodule of the feature map.

        None if there is none, as in ViT, or if the network is divided among processes.
        """
        if any(isinstance(module, FSDPModule) for module in self.network.modules()):
            return None
        try:
            stages = find_stages(self.network, channels=self.channels)
        except ConfigurationError:
            return None
        layer = stages[0].name
        for stage in stages[1:]:
            if min(self.image_size) / stage.stride >= MIN_SIDE:
                layer = stage.name
        return layer

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute the maps.

        Args:
            images: (N, C, H, W), as ``module`` takes them.
            labels: (N,) int64, the class of each map.

        Returns:
            (N, H, W) float in [0, 1]; the largest value of each map is 1, unless nothing supports
            the class.
        """
        assert self.layer is not None, "the network has no feature map"
        maps: list[Tensor] = []

        def record(_: str, __: Any, output: Tensor) -> Tensor:
            # Gradients are needed from here on only, which saves the memory of the layers before.
            torch.set_grad_enabled(True)
            # An activation that is applied in place after this layer changes this tensor too.
            maps.append(output.detach().requires_grad_() * 1)
            return maps[-1]

        layers = {self.layer: self.network.get_submodule(self.layer)}
        # Lightning evaluates in inference mode, whose tensors have no gradients.
        with torch.inference_mode(False), torch.no_grad(), _evaluation(self.module):
            with forward_hooks(layers, record):
                logits = _get_logits(self.module(images.clone()))
            score = logits.gather(1, labels.clone()[:, None]).sum()
            (gradients,) = torch.autograd.grad(score, maps[-1])
        weighted = (gradients.relu() * maps[-1].detach()).sum(dim=1, keepdim=True).relu().float()
        size = (images.shape[-2], images.shape[-1])
        resized = F.interpolate(weighted, size, mode="bilinear", align_corners=False)[:, 0]
        largest = resized.amax(dim=(1, 2), keepdim=True)
        return resized / largest.clamp(min=torch.finfo(resized.dtype).tiny)


@contextmanager
def _evaluation(module: nn.Module) -> Iterator[None]:
    """Switch a module to evaluation mode within this context."""
    flags = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, flag in flags.items():  # frozen parts may be in another mode than the rest
            part.training = flag


def _get_logits(outputs: Any) -> Tensor:
    """Return the main logits of networks that return more than these."""
    outputs = getattr(outputs, "logits", outputs)
    return outputs[0] if isinstance(outputs, tuple) else outputs
