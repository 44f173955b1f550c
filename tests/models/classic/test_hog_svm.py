"""Linear classifiers of HOG features in sliding windows."""

import pytest
import torch

from tests.builders import box_spec, box_targets
from tests.models.classic.frames import SPEC, draw, fit
from vision_lab.models.classic.hog_svm import HogSvm
from vision_lab.models.classic.pixels import to_pixels


def test_a_window_has_the_aspect_ratio_of_objects():
    window = fit(HogSvm(SPEC, num_rounds=1)).window(0)
    assert window.columns > window.rows


def test_components_share_the_objects_of_a_class_by_their_aspect_ratio():
    detector = HogSvm(SPEC, num_components=2)
    wide, high = [0.0, 0.0, 40.0, 20.0], [0.0, 0.0, 20.0, 40.0]
    detector.prepare([box_targets([wide, high], [0, 0]), box_targets([high, wide], [0, 0])])
    assert list(detector.components()) == [0, 1]
    assert detector.window(0).rows > detector.window(0).columns  # the high ones come first
    assert detector.window(1).columns > detector.window(1).rows
    assert detector.component_of(torch.tensor(high), 0) == 0
    assert detector.component_of(torch.tensor(wide), 0) == 1


def test_components_of_all_classes_are_numbered_one_after_the_other():
    detector = HogSvm(box_spec((80, 96)), num_components=3)
    assert len(detector.components()) == 15
    assert [detector.class_of(component) for component in (0, 2, 3, 14)] == [0, 0, 1, 4]


def test_the_score_of_a_window_is_linear_in_its_features():
    detector = fit(HogSvm(SPEC, num_rounds=2))
    image, _ = draw(50)
    levels = detector.make_pyramid(to_pixels(image))
    placed = detector.place(levels, 1, 0)
    features = detector.window_features(levels, 1, placed, 0, (3, 2))
    expected = features @ detector.root_filter(0).flatten() + detector.get_parameter("bias0")
    assert abs(float(placed.scores[3, 2] - expected)) < 1e-4


def test_kept_windows_without_object_are_limited():
    detector = HogSvm(SPEC, num_rounds=3)
    detector.max_negatives = 20
    fit(detector)
    assert 10 <= len(detector.negatives[0]) <= 20


def test_windows_that_fit_into_no_image_are_named(caplog: pytest.LogCaptureFixture):
    detector = HogSvm(SPEC, num_rounds=1)
    target = box_targets([[2, 5, 92, 7]], [0])
    detector.prepare([target])
    detector.collect(draw(0)[0], target, round_index=0, generator=torch.Generator())
    detector.fit()
    (message,) = caplog.messages
    assert message.startswith("frame: windows of 2 x 40 cells are not fitted, they fit into no")
    assert "type model.object_cells smaller or model.max_scale larger" in message


def test_components_without_objects_are_named(caplog: pytest.LogCaptureFixture):
    fit(HogSvm(SPEC, num_components=2, num_rounds=1))  # all objects have the same aspect ratio
    assert "no object was collected for them: type model.num_components smaller" in caplog.text
