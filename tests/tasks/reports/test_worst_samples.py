"""The worst samples are kept, in any order of batches."""

import random
from functools import partial

import torch

from vision_lab.tasks.reports.worst_samples import WorstSamples


def noted(drawn: list[float], value: float) -> torch.Tensor:
    drawn.append(value)
    return torch.tensor(value)


def test_the_worst_samples_and_the_first_of_equals():
    samples = [(0.5, 3), (0.9, 4), (0.5, 1), (0.1, 0), (0.9, 2), (0.5, 5)]
    for seed in range(5):
        worst, drawn = WorstSamples(3), []
        random.Random(seed).shuffle(samples)
        for score, index in samples:
            worst.offer(score, index, partial(noted, drawn, index))
        assert [image.item() for image in worst.sorted_samples()] == [2, 4, 1]
    assert len(drawn) <= 6


def test_only_kept_detections_are_drawn():
    worst, drawn = WorstSamples(1), []
    for score in (0.9, 0.1, 0.5):
        worst.offer(score, 0, partial(noted, drawn, score))
    assert drawn == [0.9]
