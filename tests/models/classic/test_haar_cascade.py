"""Cascades of Haar features."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.builders import Outcome, box_spec
from tests.models.classic.frames import SPEC, draw, fit, noise
from vision_lab.core.arguments import ArgumentError
from vision_lab.core.errors import ConfigurationError
from vision_lab.models.classic.haar_cascade import HaarCascade, merge

Command = Callable[..., Outcome]


def test_each_round_adds_a_stage_that_passes_fewer_windows():
    image, _ = draw(60)
    counts = []
    for num_rounds in (1, 2, 4):
        detector = fit(HaarCascade(SPEC, num_rounds=4), num_rounds=num_rounds)
        cascade = detector.cascade(0)
        assert 1 <= len(cascade.stages) <= num_rounds
        assert int(cascade.stages[:, 0].sum()) == len(cascade.stumps)
        assert int(cascade.stumps[:, 0].max()) < len(cascade.features)
        counts.append(len(detector.detect(image)))
    assert counts[0] > counts[-1] > 0


def test_windows_of_an_object_are_averaged_and_add_to_its_score():
    boxes = torch.tensor([[0.0, 0, 20, 20], [2.0, 0, 22, 20], [60.0, 60, 80, 80]])
    found = merge(boxes, torch.tensor([1.0, 3.0, 1.0]), 2)
    assert found.labels.tolist() == [2, 2, 2]
    for row, score in zip(found.boxes.tolist(), found.scores.tolist(), strict=True):
        if row[0] < 50:
            assert row == [1.5, 0.0, 21.5, 20.0]
            assert score == pytest.approx(math.log(4))
        else:
            assert score == pytest.approx(0)  # of a margin of 1
    alone = merge(boxes, torch.tensor([1.0, 3.0, 1.0]), 2, min_neighbors=2)
    assert len(alone) == 2


def test_published_cascades_are_not_trained_further():
    spec = replace(box_spec((64, 64)), class_names=("face", "eye"), num_classes=2)
    detector = HaarCascade(spec, weights="opencv")
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    assert detector.num_rounds == 1
    assert len(detector.cascade(0).stages) == 25
    image, target = draw(0)
    detector.prepare([])
    detector.collect(image, target, round_index=0, generator=torch.Generator())
    assert detector.fit() == {}
    for name, value in detector.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_step_that_leaves_no_features_is_refused():
    with pytest.raises(ConfigurationError, match="windows of frame have 7 x 10 pixels"):
        fit(HaarCascade(SPEC, window_side=8, feature_step=16))


def test_a_class_whose_first_round_has_too_few_examples_starts_later():
    detector = HaarCascade(SPEC, num_rounds=2)
    image, target = draw(0)
    detector.prepare([target])
    generator = torch.Generator().manual_seed(0)
    detector.collect(image, target, round_index=0, generator=generator)
    detector.fit()
    assert len(detector.cascade(0).stages) == 0
    for seed in range(12):
        image, target = draw(seed)
        detector.collect(image, target, round_index=1, generator=generator)
    detector.fit()
    assert len(detector.cascade(0).stages) == 1


def test_a_class_without_published_cascade_is_named():
    with pytest.raises(ArgumentError, match="OpenCV has no cascade for frame, but for face"):
        HaarCascade(SPEC, weights="opencv")


def test_published_cascades_predict_images_and_start_runs(command: Command, tmp_path: Path):
    Image.fromarray(noise(90, 120)).save(tmp_path / "photo.png")
    words = ("task=detect", "model=haar_cascade", "head=none", "model.weights=opencv")
    outcome = command("mode=predict", *words, "data=faces", "source=photo.png", "trainer=cpu")
    assert outcome.code == 0, outcome.err
    assert "weights: cascades that OpenCV comes with" in outcome.out
    assert "photo.png" in outcome.out
