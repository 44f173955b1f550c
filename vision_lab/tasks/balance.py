"""How much each class counts in a loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vision_lab.types import ConfigurationError, DataSpec

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
    if len(class_weights) != spec.num_classes:
        raise ConfigurationError(
            f"task.class_weights has {len(class_weights)} numbers for {spec.num_classes} classes: type one for each of "
            + ", ".join(spec.class_names)
        )
    return torch.tensor(class_weights, dtype=torch.float)
