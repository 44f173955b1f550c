"""The learning rate as a factor of training progress, from 0 at the first step to 1 at the last.

So nothing is typed twice: no number of epochs, no steps, right for any batch size and any number of devices.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from vision_lab.core.arguments import Fraction, NonNegative, Positive, Range

Schedule = Callable[[float], float]
"""progress in [0, 1] -> factor of ``optimizer.lr``."""


@dataclass(frozen=True, kw_only=True)
class Constant:
    """The same rate throughout, after a linear warm-up."""

    warmup_fraction: Fraction = 0.0

    def __call__(self, progress: float) -> float:
        return _linear_warmup(progress, self.warmup_fraction)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """A linear warm-up, then half a cosine from 1 to ``final`` (Loshchilov 2017, without restarts)."""

    warmup_fraction: Fraction = 0.05
    final_factor: NonNegative = 0.0

    def __call__(self, progress: float) -> float:
        if progress < self.warmup_fraction or self.warmup_fraction == 1:
            return _linear_warmup(progress, self.warmup_fraction)
        return _cosine(
            1.0, self.final_factor, (progress - self.warmup_fraction) / (1 - self.warmup_fraction)
        )


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Half a cosine up from ``start`` to 1 at ``peak`` of the way, another down to ``final`` (Smith 2018).

    The momentum stays as it is, unlike in torch's ``OneCycleLR``.
    """

    pct_start: Fraction = 0.3
    start_factor: NonNegative = 0.04
    final_factor: NonNegative = 4e-6

    def __call__(self, progress: float) -> float:
        if progress < self.pct_start or self.pct_start == 1:
            return _cosine(self.start_factor, 1.0, progress / self.pct_start)
        return _cosine(1.0, self.final_factor, (progress - self.pct_start) / (1 - self.pct_start))


@dataclass(frozen=True, kw_only=True)
class MultiStep:
    """Times ``gamma`` at each of the milestones: a third and two thirds of the way, as ImageNet's recipes do."""

    milestones: Sequence[Fraction] = (1 / 3, 2 / 3)
    gamma: Positive = 0.1
    warmup_fraction: Fraction = 0.0

    def __call__(self, progress: float) -> float:
        passed = sum(progress >= milestone for milestone in self.milestones)
        return _linear_warmup(progress, self.warmup_fraction) * self.gamma**passed


@dataclass(frozen=True, kw_only=True)
class Polynomial:
    """(1 - progress) to the power of ``power``, after a linear warm-up (Chen 2017: 0.9)."""

    power: NonNegative = 0.9
    warmup_fraction: Fraction = 0.0

    def __call__(self, progress: float) -> float:
        return _linear_warmup(progress, self.warmup_fraction) * (1 - progress) ** self.power


@dataclass(frozen=True, kw_only=True)
class ReduceOnPlateau:
    """Times ``factor`` once the monitored metric has not improved for ``patience`` validations: torch's own."""

    factor: Annotated[float, Range(gt=0, lt=1)] = 0.1
    patience: Annotated[int, Range(ge=0)] = 5
    threshold: NonNegative = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"


def _linear_warmup(progress: float, warmup: float) -> float:
    return progress / warmup if progress < warmup else 1.0


def _cosine(begin: float, end: float, part: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * part)) / 2
