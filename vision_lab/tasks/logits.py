"""Logits of networks that return more than one tensor, and their averages."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def all_logits(outputs: Any) -> list[Tensor]:
    """Return the logits of a network, the main ones first.

    Args:
        outputs: logits; a tuple of main and auxiliary logits, as of GoogLeNet; or an object with
            the attribute ``logits``, as of the models of Hugging Face.
    """
    outputs = getattr(outputs, "logits", outputs)
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def main_logits(outputs: Any) -> Tensor:
    """Return the logits that predictions are made from.

    Args:
        outputs: see ``all_logits``.
    """
    return all_logits(outputs)[0]


def average_logits(first: Tensor, second: Tensor) -> Tensor:
    """Return logits whose probabilities are the mean of those of two tensors of logits.

    Args:
        first: (N, K, ...) logits.
        second: logits of the same shape.
    """
    log_probabilities = [logits.float().log_softmax(dim=1) for logits in (first, second)]
    return torch.stack(log_probabilities).logsumexp(dim=0) - math.log(2)
