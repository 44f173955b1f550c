"""Weight files of torchvision's detectors load and predict."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torchvision.models import detection

from tests.builders import Outcome
from tests.data import annotation_files
from vision_lab.models import weights

Command = Callable[..., Outcome]

PUBLISHED = {
    "faster_rcnn": ("resnet50", "fasterrcnn_resnet50_fpn", 320),
    "ssd": ("vgg16", "ssd300_vgg16", 300),
}
"""head: its model, torchvision's name, the size of the images; the other two load by the same lines."""


@pytest.mark.slow
@pytest.mark.parametrize("head", PUBLISHED)
def test_a_published_file_predicts(head: str, command: Command, tmp_path: Path):
    model, constructor, side = PUBLISHED[head]
    torch.manual_seed(0)
    theirs = getattr(detection, constructor)(weights=None, weights_backbone=None, num_classes=91)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    image = annotation_files.image(tmp_path / "noise.png", (side, side))
    words = (
        "mode=predict",
        "task=detect",
        f"model={model}",
        f"head={head}",
        f"source={image}",
        "trainer=cpu",
    )
    size = f"data.spec.image_size=[{side},{side}]"
    outcome = command(*words, "data=coco91", f"head.weights={tmp_path / 'weights.pth'}", size)
    assert outcome.code == 0, outcome.err
    assert f"{len(theirs.state_dict())} tensors loaded" in outcome.out
    fewer = command(*words, "data=scenes", f"head.weights={tmp_path / 'weights.pth'}", size)
    assert fewer.code == 1
    assert "so predictions would be random" in fewer.err


def test_normalization_of_published_detectors(monkeypatch: pytest.MonkeyPatch):
    """SSD subtracts a mean and keeps values up to 255."""
    enumeration = torchvision.models.get_model_weights("ssd300_vgg16")
    monkeypatch.setattr(enumeration, "get_state_dict", lambda *_, **__: {"a": torch.zeros(1)})
    _, mean, std = weights._download("coco", "ssd300_vgg16", "head.weights")
    assert mean == pytest.approx((0.48235, 0.45882, 0.40784))
    assert std == pytest.approx((1 / 255,) * 3)
