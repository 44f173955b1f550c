"""Class weights of losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from vision_lab.core.arguments import ArgumentError, Hint, NonNegative
from vision_lab.core.spec import DataSpec

ClassWeights = Annotated[
    Sequence[NonNegative] | Literal["auto"] | None,
    Hint("auto, null or a list of numbers of 0 or more, one for each class"),
]
"""``auto`` computes them from the training data."""


def parse_class_weights(class_weights: ClassWeights, spec: DataSpec) -> Tensor | None:
    """Convert class weights from a config to a tensor.

    Args:
        class_weights: see ``ClassWeights``.
        spec: spec of the data.

    Returns:
        (K,) float; None for equal weights, or if they will be computed from the data.

    Raises:
        ArgumentError: if there is not one number for each class, or all are 0.
    """
    if class_weights is None or class_weights == "auto":
        return None
    if len(class_weights) != spec.num_classes:
        needed = f"one number for each of {', '.join(spec.class_names)}"
        raise ArgumentError("class_weights", class_weights, needed)
    if not any(class_weights):
        needed = "a number above 0 for at least one class"
        raise ArgumentError("class_weights", class_weights, needed)
    return torch.tensor([float(weight) for weight in class_weights])


def set_class_weights(loss: Any, weights: Tensor | None) -> None:
    """Set the ``weight`` of a loss, as torch's losses have it.

    It is no part of checkpoints: it follows from the config and the data.

    Args:
        loss: the loss.
        weights: (K,) float; None for equal weights.
    """
    if isinstance(loss, nn.Module) and "weight" in dict(loss._buffers):
        loss.register_buffer("weight", weights, persistent=False)
    else:
        loss.weight = weights
