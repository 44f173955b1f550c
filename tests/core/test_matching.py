"""Which detections of an image are correct."""

from tests.builders import box_targets, detections
from vision_lab.core.matching import match_detections


def test_detections_are_matched_by_descending_score():
    truth = box_targets(
        [[0, 0, 20, 20], [50, 50, 70, 70], [30, 0, 60, 30]], [0, 1, 0], [False, False, True]
    )
    predictions = detections(
        [
            [0, 0, 0, 20, 20, 0.9],  # right
            [0, 1, 0, 21, 20, 0.8],  # the same object again
            [0, 50, 50, 70, 70, 0.7],  # of another class
            [0, 32, 0, 60, 30, 0.6],  # in a crowd
            [1, 80, 80, 90, 90, 0.5],  # nothing is there
        ]
    )
    wrong, missed = match_detections(predictions, truth)
    assert wrong.tolist() == [False, True, True, False, True]
    assert missed.tolist() == [False, True, False]
    large = box_targets([[0, 0, 100, 100]], [0], [True])  # of whom one is found
    assert match_detections(detections([[0, 40, 40, 50, 60, 0.9]]), large)[0].tolist() == [False]
    wrong, missed = match_detections(detections([]), truth)
    assert len(wrong) == 0
    assert missed.tolist() == [True, True, False]
