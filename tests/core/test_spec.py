"""A data spec is validated when it is created."""

import pytest

from vision_lab.core.batch import Batch, Sample
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.spec import DataSpec

PLAIN = {
    "target_type": "labels",
    "class_names": ["a", "b"],
    "num_classes": 2,
    "image_size": [8, 9],
    "channels": 3,
    "mean": [0.1, 0.2, 0.3],
    "std": [1.0],
}


def test_from_plain_lists():
    spec = DataSpec.from_config(PLAIN)
    assert spec.class_names == ("a", "b")
    assert spec.image_size == (8, 9)
    assert spec.num_classes == 2


def test_all_errors_are_reported_together():
    wrong = PLAIN | {
        "num_classes": 3,
        "image_size": [8],
        "channels": 0,
        "mean": [0.1, 0.2],
        "std": [0.0],
    }
    with pytest.raises(ConfigurationError) as caught:
        DataSpec.from_config(wrong)
    assert str(caught.value).splitlines() == [
        "data.spec.num_classes=3, but data.spec.class_names has 2",
        "data.spec.image_size=[8]: type [height,width] in pixels",
        "data.spec.channels=0: type 1 for grayscale or 3 for RGB",
        "data.spec.mean has 2 numbers for 0 channels: type one number, or one for each channel",
        "data.spec.std=[0.0]: type numbers above 0",
    ]


def test_a_batch_moves_all_of_its_tensors():
    import torch

    images, labels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1])
    batch = Batch(images, labels, [Sample(0, None, (4, 4)), Sample(1, "b.png", (4, 4))])
    moved = batch.to(torch.device("meta"))
    assert moved.images.device.type == moved.targets.device.type == "meta"
    assert moved.samples == batch.samples
