"""What all detectors without gradients have in common."""

import os
import signal
import time
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.builders import Outcome, box_spec, box_targets
from tests.models.classic.frames import SPEC, draw, fit
from tests.processes import ForkedCommand
from vision_lab.core.errors import DataError
from vision_lab.models.classic.detector import ClassicDetector
from vision_lab.models.classic.dpm import Dpm
from vision_lab.models.classic.haar_cascade import HaarCascade
from vision_lab.models.classic.hog_svm import HogSvm

Command = Callable[..., Outcome]
Make = Callable[..., ClassicDetector]

DETECTORS = pytest.mark.parametrize("make", [HogSvm, Dpm, HaarCascade])


@cache
def fit_once(make: Make) -> ClassicDetector:
    return fit(make(SPEC, num_rounds=3))


@DETECTORS
def test_frames_are_found_at_their_places(make: Make):
    detector = fit_once(make)
    for seed in range(100, 105):
        image, target = draw(seed)
        (found,) = detector.decode(image[None])
        best = found[found.scores.argmax()[None]]
        assert (best.boxes - target.boxes).abs().max() < 8
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


@DETECTORS
def test_small_objects_are_found_in_enlarged_images(make: Make):
    image, target = draw(200)
    small = torch.nn.functional.interpolate(image[None].float(), scale_factor=0.5, mode="area")
    detector = make(SPEC, num_rounds=3, max_scale=2.0)
    detector.load_state_dict(fit_once(make).state_dict())
    (found,) = detector.decode(small.round().byte())
    best = found[found.scores.argmax()[None]]
    assert (best.boxes - target.boxes / 2).abs().max() < 5


@DETECTORS
def test_weights_of_any_shape_are_loaded(make: Make):
    detector = fit_once(make)
    again = make(SPEC, num_rounds=3)
    again.load_state_dict(detector.state_dict())
    image, _ = draw(7)
    assert len(detector.detect(image)) > 0
    assert torch.equal(again.detect(image).scores, detector.detect(image).scores)


@DETECTORS
def test_images_without_objects_and_crowds_are_negative_or_ignored(make: Make):
    detector = deepcopy(fit_once(make))
    image, target = draw(3)
    before = len(detector.negatives[0])
    generator = torch.Generator().manual_seed(0)
    detector.collect(image, box_targets([], []), round_index=0, generator=generator)
    assert detector.positives[0] == []
    assert len(detector.negatives[0]) > before
    whole_image = box_targets([[0, 0, 96, 80]], [0], crowd=[True])
    number = len(detector.negatives[0])
    detector.collect(image, whole_image, round_index=1, generator=generator)
    assert len(detector.negatives[0]) == number  # all windows are in the crowd
    crowd = box_targets(target.boxes.tolist(), [0], crowd=[True])
    detector.collect(image, crowd, round_index=1, generator=generator)
    assert detector.positives[0] == []


@DETECTORS
def test_an_image_smaller_than_a_window_has_no_detections(make: Make):
    detector = deepcopy(fit_once(make))
    (found,) = detector.decode(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    assert len(found) == 0
    generator = torch.Generator().manual_seed(0)
    tiny = torch.zeros(3, 4, 4, dtype=torch.uint8)
    for round_index in range(3):
        detector.collect(tiny, box_targets([], []), round_index=round_index, generator=generator)
    assert detector.positives[0] == []


@DETECTORS
def test_a_class_without_objects_is_named(make: Make):
    detector = make(box_spec((80, 96)))
    with pytest.raises(DataError, match="b: the training images contain no such object"):
        detector.prepare([box_targets([[0, 0, 10, 10]], [0])])


ONE_MODEL = pytest.mark.parametrize(
    "model",
    [
        "haar_cascade",
        pytest.param("hog_svm", marks=pytest.mark.slow),
        pytest.param("dpm", marks=pytest.mark.slow),
    ],
)

WORDS = (
    *("task=detect", "head=none", "trainer=cpu", "logger=none", "callbacks.image_logger=null"),
    *("data.num_images={train: 12, val: 4, test: 4}", "data.num_workers=0", "data.batch_size=4"),
    *("model.max_scale=0.7", "model.num_rounds=3"),
)


@ONE_MODEL
def test_a_run_has_the_files_of_any_other(command: Command, tmp_path: Path, model: str):
    outcome = command(*WORDS, f"model={model}", "name=classic")
    assert outcome.code == 0, outcome.err
    rows = (tmp_path / "outputs" / "classic" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 4  # a header and three rounds, although trainer.max_epochs is larger
    assert rows[0].startswith("epoch,step,train/negatives,val/map")
    assert "loss" not in rows[0]
    evaluated = command("mode=evaluate", f"run={tmp_path}/outputs/classic", "trainer=cpu")
    assert "bit-exactly the result reported after training" in evaluated.out
    again = command(*WORDS, f"model={model}", "name=classic")
    assert again.code == 0
    assert "epoch" not in again.out  # the finished run is shown


@pytest.mark.slow
def test_a_killed_run_ends_like_an_uninterrupted_one(command: Command, tmp_path: Path):
    """The others are killed in ``test_bit_exact_resume``."""
    words = (*WORDS, "model=hog_svm", "model.num_rounds=4")
    assert command(*words, "name=alone").code == 0
    killed = tmp_path / "outputs" / "killed"
    process = ForkedCommand(tmp_path, *words, "name=killed")
    while process.poll() is None and not (killed / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    outcome = command(*words, "name=killed")
    assert outcome.code == 0, outcome.err
    alone = tmp_path / "outputs" / "alone"
    for name in ("model.pth", "metrics.csv"):
        assert (alone / name).read_bytes() == (killed / name).read_bytes(), name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("head=yolo",), "model=hog_svm needs no head: type head=none"),
        (("trainer=ddp_cpu",), "this model is fitted by one process: type trainer.devices=1"),
        (
            ("task=classify",),
            "model=hog_svm is for boxes, but task=classify learns from labels",
        ),
    ],
)
def test_what_it_cannot_do_is_refused(command: Command, words: tuple[str, ...], message: str):
    outcome = command("task=detect", "model=hog_svm", "head=none", "debug=fast", *words)
    assert outcome.code == 1
    assert message in outcome.err
