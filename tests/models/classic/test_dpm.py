"""Deformable part models."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import torch
import torch.nn.functional as F

from tests.models.classic.frames import SPEC, draw, fit
from vision_lab.models.classic.dpm import MIN_QUADRATIC_COST, Dpm, choose_parts
from vision_lab.models.classic.pixels import to_pixels


def test_scores_are_those_of_the_paper():
    """Equation 2: the best score over all placements of the parts, by exhaustive search."""
    detector = fit(Dpm(SPEC, num_rounds=3, num_parts=2, part_size=3, scales_per_octave=1))
    image, _ = draw(50)
    levels = detector.make_pyramid(to_pixels(image))
    number = 1
    placed = detector.place(levels, number, 0)
    root = F.conv2d(levels[number].blocks[None], detector.root_filter(0)[None])[0, 0]
    fine = F.pad(levels[number - 1].blocks, [detector.padding_cells] * 4)
    parts = F.conv2d(fine[None], detector.get_parameter("parts0"))[0]
    anchors = detector.get_parameter("anchors0")
    costs = detector.get_parameter("deformation0")
    bias = float(detector.get_parameter("bias0"))
    rows, columns = root.shape
    assert placed.scores.shape == root.shape
    for row, column in [(0, 0), (rows - 1, columns - 1), (rows // 2, columns // 3)]:
        expected = float(root[row, column]) + bias
        for part in range(2):
            y = torch.arange(parts.shape[1])[:, None] - (2 * row + anchors[part, 0])
            x = torch.arange(parts.shape[2])[None, :] - (2 * column + anchors[part, 1])
            a, b, c, d = costs[part].tolist()
            deformed = parts[part] - (a * x + b * y + c * x**2 + d * y**2)
            expected += float(deformed.max())
        assert abs(float(placed.scores[row, column]) - expected) < 1e-4


@cache
def fit_once() -> Dpm:
    return fit(Dpm(SPEC, num_rounds=3))


def test_the_score_of_a_window_is_linear_in_its_features():
    detector = fit_once()
    image, _ = draw(50)
    levels = detector.make_pyramid(to_pixels(image))
    number = detector.scales_per_octave
    placed = detector.place(levels, number, 0)
    names = ("filter0", "parts0", "deformation0")
    weight = torch.cat([detector.get_parameter(name).flatten() for name in names])
    for position in [(0, 0), (4, 7)]:
        features = detector.window_features(levels, number, placed, 0, position)
        expected = features @ weight + detector.get_parameter("bias0")
        assert abs(float(placed.scores[position] - expected)) < 1e-3


def test_parts_follow_a_part_of_the_object_that_has_moved():
    detector = Dpm(SPEC, num_rounds=3, num_parts=1, part_size=2)
    detector.set_parameter("filter0", torch.zeros(36, 4, 4))
    detector.set_parameter("bias0", torch.tensor(0.0))
    detector.set_parameter("anchors0", torch.tensor([[2, 2]]))
    detector.set_parameter("parts0", torch.ones(1, 36, 2, 2))
    detector.set_parameter("deformation0", torch.tensor([[0.0, 0.0, 0.05, 0.05]]))
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    image[:, 36:, 40:] = 255  # nothing but one corner has gradients
    levels = detector.make_pyramid(to_pixels(image))
    number = detector.scales_per_octave
    placed = detector.place(levels, number, 0)
    y, x = placed.parts[0, :, 8, 9].tolist()
    anchor = (2 * 8 + 2, 2 * 9 + 2)
    assert (y, x) != anchor
    displaced = 0.05 * ((y - anchor[0]) ** 2 + (x - anchor[1]) ** 2)
    fine = detector._part_level(levels, number)
    gained = float(fine[:, y : y + 2, x : x + 2].sum()) - displaced
    assert abs(float(placed.scores[8, 9]) - gained) < 1e-4
    assert gained > float(fine[:, anchor[0] : anchor[0] + 2, anchor[1] : anchor[1] + 2].sum())


def test_parts_are_chosen_where_positive_weights_are_large_and_do_not_repeat():
    root = torch.zeros(36, 6, 8)
    root[3, 1, 6] = 2.0
    root[5, 4, 1] = 1.0
    root[7, 3, 3] = -9.0  # negative weights do not count
    first, second = choose_parts(root, num_parts=2, size=3).tolist()
    assert abs(first[0] - 2) <= 2
    assert abs(first[1] - 12) <= 2
    assert abs(second[0] - 8) <= 2
    assert abs(second[1] - 2) <= 2


def test_parts_appear_in_the_third_round_and_stay_near_their_anchors():
    two_rounds = fit(Dpm(SPEC, num_rounds=3), num_rounds=2)
    assert not two_rounds.has_parts(0)
    detector = fit_once()
    assert detector.get_parameter("parts0").shape == (6, 36, 5, 5)
    assert detector.get_parameter("deformation0")[:, 2:].min() >= MIN_QUADRATIC_COST - 1e-6


def test_there_are_no_more_parts_than_places_for_them():
    root = torch.zeros(36, 3, 3)
    root[0] = 1.0
    anchors = choose_parts(root, num_parts=9, size=3)
    assert 2 <= len(anchors) < 9
    assert len({tuple(anchor) for anchor in anchors.tolist()}) == len(anchors)


def test_objects_that_no_window_fits_are_left_out():
    detector = deepcopy(fit_once())
    image, target = draw(4)
    detector.collect_positives(to_pixels(image), target)
    assert len(detector.positives[0]) == 2  # the object and its mirror image
    narrow = replace(target, boxes=torch.tensor([[10.0, 5.0, 14.0, 70.0]]))
    detector.collect_positives(to_pixels(image), narrow)
    assert len(detector.positives[0]) == 2
