"""How much each class counts in a loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vision_lab.types import ConfigurationError, DataSpec, number

ClassWeights = Sequence[float] | str | None
"""``auto``: by the training data."""


def typed_weights(class_weights: ClassWeights, spec: DataSpec) -> Tensor | None:
    """(K,) weights as typed; None where all count alike, or ``auto`` leaves it to the data.

    Raises:
        ConfigurationError: where they are not one number for each class.
    """
    if class_weights is None or class_weights == "auto":
        return None
    if isinstance(class_weights, str):  # which a command line may say
        raise ConfigurationError(f"task.class_weights={class_weights}: type auto, null or a list of numbers")
    if not isinstance(class_weights, Sequence) or len(class_weights) != spec.num_classes:
        count = len(class_weights) if isinstance(class_weights, Sequence) else 1
        raise ConfigurationError(
            f"task.class_weights has {count} numbers for {spec.num_classes} classes: type one for each of "
            + ", ".join(spec.class_names)
        )
    weights = [number("task.class_weights", weight) for weight in class_weights]
    if not any(weights):
        raise ConfigurationError("task.class_weights: type a number above 0 for at least one class")
    return torch.tensor(weights)
