"""The worst samples are kept, whatever the order they come in."""

import random
from functools import partial

import torch

from vision_lab.tasks.worst_samples import WorstSamples


def noted(drawn: list[float], value: float) -> torch.Tensor:
    drawn.append(value)
    return torch.tensor(value)


def test_the_worst_and_of_equals_the_first():
    samples = [(0.5, 3), (0.9, 4), (0.5, 1), (0.1, 0), (0.9, 2), (0.5, 5)]
    for seed in range(5):
        worst, drawn = WorstSamples(3), []
        random.Random(seed).shuffle(samples)
        for badness, index in samples:
            worst.offer(badness, index, partial(noted, drawn, index))
        assert [picture.item() for picture in worst.images()] == [2, 4, 1]
    assert len(drawn) <= 6


def test_nothing_is_drawn_that_is_not_kept():
    worst, drawn = WorstSamples(1), []
    for badness in (0.9, 0.1, 0.5):
        worst.offer(badness, 0, partial(noted, drawn, badness))
    assert drawn == [0.9]
