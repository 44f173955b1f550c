"""Learning-rate schedules as functions of training progress, from 0 (first step) to 1 (last).

A schedule contains no number of epochs or steps, so it fits any batch size and number of devices.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vision_lab.core.arguments import Fraction, NonNegative, Positive

Schedule = Callable[[float], float]
"""Maps progress in [0, 1] to a factor of ``optimizer.lr``."""


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Constant learning rate after a linear warm-up.

    Attributes:
        warmup_fraction: fraction of training for the warm-up.
    """

    warmup_fraction: Fraction = 0.0

    def __call__(self, progress: float) -> float:
        return _linear_warmup(progress, self.warmup_fraction)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up, then cosine decay (Loshchilov 2017, without restarts).

    Attributes:
        warmup_fraction: fraction of training for the warm-up.
        final_factor: factor at the last step.
    """

    warmup_fraction: Fraction = 0.05
    final_factor: NonNegative = 0.0

    def __call__(self, progress: float) -> float:
        warmup = self.warmup_fraction
        if progress < warmup or warmup == 1:
            return _linear_warmup(progress, warmup)
        return _cosine(1.0, self.final_factor, (progress - warmup) / (1 - warmup))


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Cosine rise to 1, then cosine decay (Smith 2018); the momentum is constant, unlike torch's.

    Attributes:
        pct_start: fraction of training for the rise.
        start_factor: factor at the first step.
        final_factor: factor at the last step.
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
    """Multiplication by ``gamma`` at each milestone, after a linear warm-up.

    Attributes:
        milestones: fractions of training; by default those of common ImageNet recipes.
        gamma: factor at each milestone.
        warmup_fraction: fraction of training for the warm-up.
    """

    milestones: Sequence[Fraction] = (1 / 3, 2 / 3)
    gamma: Positive = 0.1
    warmup_fraction: Fraction = 0.0

    def __call__(self, progress: float) -> float:
        passed = sum(progress >= milestone for milestone in self.milestones)
        return _linear_warmup(progress, self.warmup_fraction) * self.gamma**passed


@dataclass(frozen=True, kw_only=True)
class Polynomial:
    """Polynomial decay, ``(1 - progress) ** power``, after a linear warm-up (Chen 2017: 0.9).

    Attributes:
        power: the exponent.
        warmup_fraction: fraction of training for the warm-up.
    """

    power: NonNegative = 0.9
    warmup_fraction: Fraction = 0.0

    def __call__(self, progress: float) -> float:
        return _linear_warmup(progress, self.warmup_fraction) * (1 - progress) ** self.power


def _linear_warmup(progress: float, warmup: float) -> float:
    if progress < warmup:
        return progress / warmup
    return 1.0


def _cosine(
    start: float,
    end: float,
    progress: float,
) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class SchedulerFactory:
    """Creates a scheduler of torch or timm, or any other with the interface of one of them.

    Attributes:
        make: creates the scheduler for an optimizer.
        interval: whether the scheduler steps after each optimizer step or after each epoch.
    """

    make: Callable[..., Any]
    interval: Literal["step", "epoch"] = "epoch"
