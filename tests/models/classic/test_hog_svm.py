"""Linear classifiers of HOG features in sliding windows."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.builders import Outcome, box_spec, box_targets
from tests.processes import ForkedCommand
from vision_lab.core.batch import BoxTargets
from vision_lab.core.errors import DataError
from vision_lab.models.classic.hog_svm import HogSvm, hog_svm

Command = Callable[..., Outcome]


def draw(seed: int) -> tuple[torch.Tensor, BoxTargets]:
    """Return noise with a bright frame of 30 x 20 pixels (class 1) at a random place."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 60, (3, 80, 96), generator=generator, dtype=torch.uint8)
    x, y = (int(torch.randint(5, limit, (), generator=generator)) for limit in (60, 50))
    image[:, y : y + 20, x : x + 30] = 200
    image[:, y + 5 : y + 15, x + 5 : x + 25] = 30
    return image, box_targets([[x, y, x + 30, y + 20]], [0])


def fit(num_rounds: int = 2, **changes) -> HogSvm:
    spec = box_spec((80, 96))
    spec = type(spec)(**(vars(spec) | {"class_names": ("frame",), "num_classes": 1}))
    detector = hog_svm(spec, num_rounds=num_rounds, **changes)
    samples = [draw(seed) for seed in range(12)]
    detector.prepare(target for _, target in samples)
    for round_index in range(num_rounds):
        for number, (image, target) in enumerate(samples):
            generator = torch.Generator().manual_seed(number)
            detector.collect(image, target, round_index=round_index, generator=generator)
        detector.fit()
    return detector


def test_frames_are_found_at_their_places():
    detector = fit()
    assert detector.window(0).columns > detector.window(0).rows  # as the objects
    for seed in range(100, 105):
        image, target = draw(seed)
        (found,) = detector.decode(image[None])
        best = found[found.scores.argmax()[None]]
        assert (best.boxes - target.boxes).abs().max() < 8
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_small_objects_are_found_in_enlarged_images():
    image, target = draw(200)
    small = torch.nn.functional.interpolate(image[None].float(), scale_factor=0.5, mode="area")
    (found,) = fit(max_scale=2.0).decode(small.round().byte())
    best = found[found.scores.argmax()[None]]
    assert (best.boxes - target.boxes / 2).abs().max() < 5


def test_weights_of_any_shape_are_loaded():
    detector = fit(num_rounds=1)
    again = hog_svm(detector.spec)
    again.load_state_dict(detector.state_dict())
    image, _ = draw(7)
    assert torch.equal(again.detect(image).scores, detector.detect(image).scores)
    assert sum(parameter.numel() for parameter in again.parameters()) > 1000


def test_images_without_objects_and_crowds_are_negative_or_ignored():
    detector = fit(num_rounds=1)
    image, target = draw(3)
    before = len(detector.negatives[0])
    generator = torch.Generator().manual_seed(0)
    detector.collect(image, box_targets([], []), round_index=0, generator=generator)
    assert detector.positives[0] == []
    assert len(detector.negatives[0]) > before
    crowd = box_targets(target.boxes.tolist(), [0], crowd=[True])
    detector.collect(image, crowd, round_index=1, generator=generator)
    assert detector.positives[0] == []


def test_a_class_without_objects_is_named():
    detector = hog_svm(box_spec((80, 96)))
    with pytest.raises(DataError, match="b: the training images contain no such object"):
        detector.prepare([box_targets([[0, 0, 10, 10]], [0])])


WORDS = (
    *("task=detect", "model=hog_svm", "head=none", "trainer=cpu", "logger=none"),
    *("data.num_images={train: 12, val: 4, test: 4}", "callbacks.image_logger=null"),
    *("model.max_scale=0.7", "model.num_rounds=2", "data.num_workers=0", "data.batch_size=4"),
)


def test_a_run_has_the_files_of_any_other(command: Command, tmp_path: Path):
    outcome = command(*WORDS, "name=hog")
    assert outcome.code == 0, outcome.err
    rows = (tmp_path / "outputs" / "hog" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3  # a header and two rounds, although trainer.max_epochs is larger
    assert rows[0].startswith("epoch,step,train/negatives,val/map")
    assert "loss" not in rows[0]
    evaluated = command("mode=evaluate", f"run={tmp_path}/outputs/hog", "trainer=cpu")
    assert "bit-exactly the result reported after training" in evaluated.out
    again = command(*WORDS, "name=hog")
    assert again.code == 0
    assert "epoch" not in again.out  # the finished run is shown


@pytest.mark.slow
def test_a_killed_run_ends_like_an_uninterrupted_one(command: Command, tmp_path: Path):
    words = (*WORDS, "model.num_rounds=3")
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
