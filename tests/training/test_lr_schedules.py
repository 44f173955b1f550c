"""Factors at the start, the turning points and the end."""

import pytest

from vision_lab.training.lr_schedules import Constant, Cosine, MultiStep, OneCycle, Polynomial


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (Constant(), {0: 1, 0.5: 1, 1: 1}),
        (Constant(warmup_fraction=0.2), {0: 0, 0.1: 0.5, 0.2: 1, 1: 1}),
        (Cosine(warmup_fraction=0.0), {0: 1, 0.5: 0.5, 1: 0}),
        (Cosine(warmup_fraction=0.1, final_factor=0.2), {0.05: 0.5, 0.1: 1, 0.55: 0.6, 1: 0.2}),
        (OneCycle(), {0: 0.04, 0.15: 0.52, 0.3: 1, 0.65: 0.5, 1: 4e-6}),
        (MultiStep(), {0: 1, 0.33: 1, 0.34: 0.1, 0.67: 0.01, 1: 0.01}),
        (
            MultiStep(milestones=(0.5,), gamma=0.5, warmup_fraction=0.1),
            {0.05: 0.5, 0.4: 1, 0.5: 0.5},
        ),
        (Polynomial(), {0: 1, 0.5: 0.5**0.9, 1: 0}),
        (Polynomial(power=1, warmup_fraction=0.5), {0.25: 0.375, 0.75: 0.25}),
    ],
)
def test_points(schedule, points: dict[float, float]):
    assert {progress: schedule(progress) for progress in points} == pytest.approx(points, abs=2e-6)
