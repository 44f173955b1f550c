"""What can be learnt of a network by running it on the meta device: no memory, no arithmetic, well under a second."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from vision_lab.core.protocols import Stage
from vision_lab.core.text import first_line

FINE, COARSE = 256, 512
"""Two sizes in pixels: a map's stride is what its two sizes differ by."""


@contextmanager
def forward_hooks(
    modules: dict[str, nn.Module], see: Callable[[str, tuple[Any, ...], Any], None]
) -> Iterator[None]:
    """Within, ``see(name, inputs, output)`` is called after each of the modules ran."""
    handles = [
        module.register_forward_hook(lambda _, inputs, output, name=name: see(name, inputs, output))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def meta_copy(network: nn.Module) -> nn.Module:
    """A copy of any network without its numbers, in evaluation mode."""
    # The memo hands deepcopy the numberless twins, so that the real tensors are never copied.
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in network.parameters()
    }
    memo |= {id(buffer): buffer.to("meta") for buffer in network.buffers()}
    return deepcopy(network, memo).eval()


def stages(classifier: nn.Module, *, channels: int) -> tuple[Stage, ...]:
    """A classifier's maps, the last of each stride, from the finest to the coarsest.

    Plain containers are opened; every other module is one unit; the unit that owns the last parameter, the classifier
    proper, is left out. The stride is exact under padded and valid convolutions alike.
    """
    copy = meta_copy(classifier)
    units = dict(_probed_modules(copy))
    sizes: dict[str, list[tuple[int, int]]] = {}

    def see(name: str, _: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            sizes.setdefault(name, []).append((output.shape[1], output.shape[2]))

    with forward_hooks(units, see):
        for side in (FINE, COARSE):
            copy(torch.empty(2, channels, side, side, device="meta"))
    found: dict[int, Stage] = {}
    for name, seen in sizes.items():
        (width, fine), (_, coarse) = seen[0], seen[-1]
        if coarse > fine:  # global pooling gives both the same
            stride = round((COARSE - FINE) / (coarse - fine))
            found[stride] = Stage(name, width, stride)
    return tuple(found[stride] for stride in sorted(found))


def min_image_size(network: nn.Module, *, channels: int, start: int) -> int | None:
    """The smallest square picture in pixels, from ``start`` on, that a network takes in training.

    None where not even 1024 pixels will do.
    """
    copy = meta_copy(network)
    low, high = start - 1, 1024
    if forward_error(copy, channels=channels, size=(high, high)):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (middle, high)
            if forward_error(copy, channels=channels, size=(middle, middle))
            else (low, middle)
        )
    return high


def forward_error(network: nn.Module, *, channels: int, size: tuple[int, int]) -> str | None:
    """Why a network does not run on pictures of that (height, width) in training; None where it does.

    Training, since then its auxiliary classifiers run too, which want larger pictures than the rest.
    """
    try:
        meta_copy(network).train()(torch.empty(2, channels, *size, device="meta"))
    except (
        RuntimeError,
        ValueError,
    ) as error:  # "kernel size can't be greater than actual input size", and its kin
        return first_line(error)
    return None


def _probed_modules(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules a forward pass walks through, in order, without the one that holds the last parameter."""
    owner = _classifier_name(module) if not prefix else None
    for name, child in module.named_children():
        if name == owner:
            continue
        if type(child) in (nn.Sequential, nn.ModuleList):
            yield from _probed_modules(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _classifier_name(module: nn.Module) -> str:
    *_, (name, _) = module.named_parameters()
    return name.split(".")[0]
