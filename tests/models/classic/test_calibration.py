"""Scores that are probabilities."""

import torch

from tests.models.classic.frames import SPEC, draw, fit
from vision_lab.models.classic.calibration import fit_sigmoid
from vision_lab.models.classic.hog_svm import HogSvm


def test_half_of_the_detections_with_a_score_of_one_half_are_correct():
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(20_000, generator=generator)
    truth = (2 * scores - 1).sigmoid()
    is_correct = torch.rand(20_000, generator=generator) < truth
    scale, offset = fit_sigmoid(scores, is_correct).tolist()
    assert abs(scale - 2) < 0.1
    assert abs(offset + 1) < 0.1


def test_few_examples_do_not_give_certainty():
    separated = fit_sigmoid(torch.tensor([-1.0, 1.0]), torch.tensor([False, True]))
    probabilities = (torch.tensor([-1.0, 1.0]) * separated[0] + separated[1]).sigmoid()
    torch.testing.assert_close(probabilities, torch.tensor([1 / 3, 2 / 3]), atol=1e-3, rtol=0)
    scale, offset = fit_sigmoid(torch.zeros(8), torch.zeros(8, dtype=torch.bool)).tolist()
    assert abs(float(torch.tensor(offset).sigmoid()) - 0.1) < 1e-3
    assert scale > 0


def test_higher_scores_are_more_probable_even_if_they_were_wrong():
    scale, _ = fit_sigmoid(torch.tensor([-1.0, 1.0]), torch.tensor([True, False])).tolist()
    assert scale > 0


def test_a_detector_that_is_often_wrong_has_low_scores():
    detector = fit(HogSvm(SPEC, num_rounds=2))
    image, target = draw(60)
    (before,) = detector.decode(image[None])
    empty = target[torch.zeros(1, dtype=torch.bool)]
    detector.calibrate([(image, empty), (draw(61)[0], empty)])
    (after,) = detector.decode(image[None])
    assert before.scores.max() > 0.5
    assert after.scores.max() < 0.2
    assert torch.equal(after.boxes[0], before.boxes[0])
    restored = HogSvm(SPEC)
    restored.load_state_dict(detector.state_dict())
    assert torch.equal(restored.decode(image[None])[0].scores, after.scores)


def test_without_detections_nothing_is_calibrated():
    detector = fit(HogSvm(SPEC, num_rounds=1))
    before = detector.get_parameter("calibration0").clone()
    detector.calibrate([])
    detector.calibrate([(torch.zeros(3, 4, 4, dtype=torch.uint8), draw(0)[1])])
    assert torch.equal(detector.get_parameter("calibration0"), before)
