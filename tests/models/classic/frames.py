"""Images with a bright frame, and detectors that have learned to find it."""

from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from tests.builders import box_spec, box_targets
from vision_lab.core.batch import BoxTargets
from vision_lab.models.classic.detector import ClassicDetector

D = TypeVar("D", bound=ClassicDetector)

SPEC = replace(box_spec((80, 96)), class_names=("frame",), num_classes=1)


def draw(seed: int) -> tuple[torch.Tensor, BoxTargets]:
    """Return noise with a bright frame of 30 x 20 pixels at a random place."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 60, (3, 80, 96), generator=generator, dtype=torch.uint8)
    x, y = (int(torch.randint(5, limit, (), generator=generator)) for limit in (60, 50))
    image[:, y : y + 20, x : x + 30] = 200
    image[:, y + 5 : y + 15, x + 5 : x + 25] = 30
    return image, box_targets([[x, y, x + 30, y + 20]], [0])


def fit(detector: D, *, num_rounds: int | None = None) -> D:
    """Fit a detector of ``SPEC``, in all its rounds unless a number is given."""
    samples = [draw(seed) for seed in range(12)]
    detector.prepare(target for _, target in samples)
    for round_index in range(num_rounds or detector.num_rounds):
        for number, (image, target) in enumerate(samples):
            generator = torch.Generator().manual_seed(number)
            detector.collect(image, target, round_index=round_index, generator=generator)
        detector.fit()
    return detector


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return random pixels (height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
