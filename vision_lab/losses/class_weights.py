"""Class weights of losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from vision_lab.core.arguments import Hint, NonNegative
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.spec import DataSpec

ClassWeights = Annotated[
    Sequence[NonNegative] | Literal["auto"] | None,
    Hint("auto, null or a list of numbers of 0 or more, one for each class"),
]
"""``auto`` computes them from the training data."""


def parse_class_weights(class_weights: ClassWeights, spec: DataSpec) -> Tensor | None:
    """Convert class weights from a config to a tensor.

    Args:
        class_weights: the value of ``task.class_weights``.
        spec: spec of the data.

    Returns:
        (K,) float; None for equal weights, or if they will be computed from the data.

    Raises:
        ConfigurationError: if there is not one number for each class, or all are 0.
    """
    if class_weights is None or class_weights == "auto":
        return None
    if len(class_weights) != spec.num_classes:
        raise ConfigurationError(
            f"task.class_weights has {len(class_weights)} numbers for {spec.num_classes} classes: "
            f"type one for each of {', '.join(spec.class_names)}"
        )
    if not any(class_weights):
        raise ConfigurationError("task.class_weights: type a number above 0 for at least one class")
    return torch.tensor([float(weight) for weight in class_weights])
