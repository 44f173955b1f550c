"""Confusion matrix of detections."""

import torch
from torch import Tensor

from vision_lab.metrics.detection_confusion import count_confusions


def box(x: float, y: float = 0.0, side: float = 10.0) -> list[float]:
    return [x, y, x + side, y + side]


def count(detections: list[list[float]], objects: list[list[float]]) -> list[list[int]]:
    found: Tensor = torch.tensor(detections).reshape(-1, 7)
    given: Tensor = torch.tensor(objects).reshape(-1, 8)
    return count_confusions(found, given, num_classes=2, score_threshold=0.3).tolist()


def test_correct_confused_missed_and_invented_objects():
    objects = [
        [0, 0, *box(0), 100, 0],
        [0, 1, *box(50), 100, 0],
        [1, 1, *box(0), 100, 0],
    ]
    detections = [
        [0, 0, *box(1), 0.9],  # correct
        [0, 0, *box(50), 0.8],  # of the other class
        [0, 1, *box(0), 0.7],  # a second one of the first object
        [0, 1, *box(50), 0.2],  # below the threshold
        [2, 1, *box(0), 0.9],  # in an image without objects
    ]
    assert count(detections, objects) == [[1, 0, 0], [1, 0, 1], [0, 2, 0]]


def test_objects_of_the_same_class_come_first():
    objects = [[0, 0, *box(0), 100, 0], [0, 1, *box(2), 100, 0]]
    detections = [[0, 1, *box(0), 0.9], [0, 0, *box(0), 0.8]]
    assert count(detections, objects) == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_ignored_objects_are_neither_missed_nor_confused():
    objects = [[0, 0, *box(0), 100, 1]]
    assert count([[0, 1, *box(0), 0.9]], objects) == [[0] * 3] * 3
    assert count([], objects) == [[0] * 3] * 3


def test_a_detection_in_a_crowd_is_not_counted():
    crowd = [0, 0, *box(0, side=100), 10000, 1]
    assert count([[0, 0, *box(20), 0.9]], [crowd]) == [[0] * 3] * 3


def test_nothing():
    assert count([], []) == [[0] * 3] * 3
