"""Cascades as OpenCV's classifiers."""

import numpy as np
import pytest
import torch

from vision_lab.core.extras import import_opencv
from vision_lab.models.classic.cascade_file import (
    OPENCV_FILES,
    Cascade,
    read_opencv_cascade,
    to_opencv,
)
from vision_lab.models.classic.haar_features import enumerate_features, haar_features


def test_a_cascade_passes_the_windows_that_its_stumps_pass():
    generator = torch.Generator().manual_seed(0)
    windows = torch.randint(0, 256, (60, 12, 16), generator=generator, dtype=torch.uint8)
    features = enumerate_features(12, 16, step=4)
    values = haar_features(windows, features)
    used = [3, 7, 12]
    stumps = torch.tensor([[place, float(values[:, place].median()), -1.0, 1.5] for place in used])
    cascade = Cascade(
        torch.tensor([12.0, 16.0]),
        features,
        torch.zeros(len(features)),
        torch.tensor([[2.0, 0.25], [1.0, 0.0]]),
        stumps,
    )
    is_above = values[:, used] >= stumps[:, 1]
    votes = torch.where(is_above, 1.5, -1.0)
    expected = (votes[:, :2].sum(dim=1) >= 0.25) & (votes[:, 2] >= 0)
    assert 5 < expected.sum() < 55
    classifier = to_opencv(cascade)
    passes = []
    for window in windows.numpy():
        # OpenCV looks only at places up to the last row and column but one.
        padded = np.pad(window, ((0, 1), (0, 1)), mode="edge")
        found = classifier.detectMultiScale(padded, minNeighbors=0, maxSize=(16, 12))
        passes.append([0, 0, 16, 12] in np.asarray(found).reshape(-1, 4).tolist())
    assert passes == expected.tolist()


EVERYDAY = ("face", "cat_face")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in EVERYDAY else pytest.mark.slow)
        for name in OPENCV_FILES
    ],
)
def test_published_cascades_detect_what_opencv_detects(name: str):
    cv2 = import_opencv("a test")
    noise = torch.randint(0, 256, (400, 400), generator=torch.Generator().manual_seed(1))
    sharp = noise.to(torch.uint8).numpy()
    ours = to_opencv(read_opencv_cascade(name))
    published = cv2.CascadeClassifier(cv2.data.haarcascades + OPENCV_FILES[name])
    num_found = 0
    for image in (sharp, cv2.GaussianBlur(sharp, (5, 5), 0)):
        boxes = []
        for classifier in (ours, published):
            found = classifier.detectMultiScale(image, scaleFactor=1.05, minNeighbors=0)
            boxes.append(sorted(np.asarray(found).reshape(-1, 4).tolist()))
        assert boxes[0] == boxes[1]
        num_found += len(boxes[0])
    assert num_found > 0  # there is something that looks like it in noise


def test_windows_without_contrast_do_not_pass_a_single_stage():
    """OpenCV lets those whose gray levels deviate by at most 10 pass the first stage."""
    cascade = Cascade(
        torch.tensor([12.0, 12.0]),
        enumerate_features(12, 12, step=4),
        torch.zeros(1),
        torch.tensor([[1.0, 5.0]]),
        torch.tensor([[0.0, 0.0, 1.0, 1.0]]),  # one vote, of five
    )
    cascade = cascade._replace(tilted=torch.zeros(len(cascade.features)))
    flat = np.full((40, 40), 90, np.uint8)
    assert len(to_opencv(cascade).detectMultiScale(flat, minNeighbors=0)) == 0
