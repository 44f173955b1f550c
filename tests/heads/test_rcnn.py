"""Selective search, R-CNN and Fast R-CNN."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models import alexnet, resnet18
from torchvision.ops import box_iou

from tests.builders import Outcome, box_spec, box_targets
from vision_lab.core.arguments import ArgumentError
from vision_lab.core.machine import CACHE_VARIABLE
from vision_lab.data.bundled.scenes import Scenes
from vision_lab.data.image_io import to_uint8_image
from vision_lab.heads import selective_search
from vision_lab.heads.rcnn import fast_rcnn, rcnn
from vision_lab.heads.selective_search import SelectiveSearch, propose
from vision_lab.models.backbone import build_backbone

Command = Callable[..., Outcome]

SMALL = {"max_proposals": 60, "box_batch_size_per_image": 8}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of caches of each test."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "caches"))
    return tmp_path / "caches" / "proposals"


def search(**changes: Any) -> SelectiveSearch:
    return SelectiveSearch(**({"mean": (0.45,), "std": (0.2,)} | changes))


def scenes(count: int) -> Scenes:
    return Scenes(
        num_images={"test": count},
        image_size=(96, 96),
        label_set="grouped",
        target_type="boxes",
        seed=0,
        split="test",
    )


def load_scenes(count: int) -> tuple[Tensor, list[Any]]:
    """Return images normalized for ``search``, and the targets."""
    samples = [scenes(count)[index] for index in range(count)]
    images = [to_uint8_image(image, channels=3, max_pixels=10**6) for image, _ in samples]
    return (torch.stack(images) / 255 - 0.45) / 0.2, [target for _, target in samples]


def test_proposals_cover_the_objects_of_scenes():
    images, targets = load_scenes(30)
    found = search(max_proposals=500)(images)
    covered = []
    for proposals, target in zip(found, targets, strict=True):
        boxes = torch.as_tensor(target["boxes"], dtype=torch.float32)
        covered.append(box_iou(boxes, proposals).max(dim=1).values >= 0.5)
        assert len(proposals) <= 500
        assert (proposals >= 0).all()
        assert (proposals <= 96).all()
    assert torch.cat(covered).float().mean() >= 0.9


@pytest.mark.parametrize("max_proposals", [20, 2000])
def test_proposals_are_a_function_of_the_image(
    folder: Path, monkeypatch: pytest.MonkeyPatch, max_proposals: int
):
    """In memory, from the disk, and computed again, where OpenCV returns them in another order."""
    images, _ = load_scenes(3)
    first = search(max_proposals=max_proposals)
    found = first(images)
    assert all(torch.equal(*pair) for pair in zip(first(images), found, strict=True))
    assert len(list(folder.rglob("*.npy"))) == 3
    with monkeypatch.context() as patched:
        patched.setattr(selective_search, "propose", lambda *_, **__: pytest.fail("computed again"))
        again = search(max_proposals=max_proposals)(images.flip(0))
    assert all(torch.equal(*pair) for pair in zip(again[::-1], found, strict=True))
    for file in folder.rglob("*.npy"):
        file.write_bytes(b"damaged")
    again = search(max_proposals=max_proposals)(images)
    assert all(torch.equal(*pair) for pair in zip(again, found, strict=True))


def test_a_full_disk_does_not_end_the_run(folder: Path):
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    assert len(search()(load_scenes(1)[0])[0]) > 2


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_image_without_regions_has_proposals(channels: int):
    pixels = np.full((40, 60, channels), 80, dtype=np.uint8)
    found = propose(pixels, strategy="fast", max_proposals=10)
    assert [0, 0, 60, 40] in found.tolist()
    assert len(found) >= 2


def build(make: Callable[..., Any], network: Callable[..., Any] = resnet18, **changes: Any) -> Any:
    spec = box_spec((96, 96))
    backbone = build_backbone(spec, network=network, stem="imagenet")
    return make(backbone, spec, **(SMALL | changes))


@pytest.mark.parametrize("make", [partial(rcnn, window_size=32), fast_rcnn])
def test_objects_are_learned(make: Callable[..., Any]):
    """Two images, without and with objects, to which the network is fitted."""
    torch.manual_seed(0)
    detector = build(make)
    images, _ = load_scenes(2)
    box = search(max_proposals=60)(images)[1][10]
    targets = [box_targets([], []), box_targets([box.tolist()], [2])]
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-3)
    detector.train()
    for _ in range(15):
        optimizer.zero_grad()
        losses = detector.losses(detector(images), targets)
        assert set(losses) == {"loss_classifier", "loss_box_reg"}
        torch.stack([*losses.values()]).sum().backward()
        optimizer.step()
    assert sum(losses.values()) < 1
    detector.eval()
    with torch.no_grad():
        detections = detector.decode(detector(images))
    assert len(detections) == 2
    assert all(each.labels.min() >= 0 and each.labels.max() < 5 for each in detections if len(each))


def test_windows_that_are_too_small_for_the_backbone_are_refused():
    with pytest.raises(ArgumentError, match="window_size=32: type a larger one"):
        build(rcnn, network=alexnet, window_size=32)


def test_strides_finer_than_those_of_the_backbone_are_refused():
    with pytest.raises(ArgumentError, match="stride=2: type one of 4, 8, 16, 32"):
        build(fast_rcnn, network=alexnet, stride=2)


@pytest.mark.parametrize("head", ["rcnn", "fast_rcnn"])
def test_opencv_is_installed_by_an_extra(
    command: Command, monkeypatch: pytest.MonkeyPatch, head: str
):
    monkeypatch.setitem(sys.modules, "cv2", None)
    outcome = command("task=detect", f"head={head}", "debug=fast", "trainer=cpu")
    assert outcome.code == 1
    assert "selective search requires OpenCV: type pip install 'vision_lab[classic]'" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("head", ["rcnn", "fast_rcnn"])
def test_runs_are_equal(command: Command, tmp_path: Path, head: str):
    words = (
        *(
            "task=detect",
            f"head={head}",
            "head.max_proposals=40",
            "head.box_batch_size_per_image=8",
        ),
        *("trainer=cpu", "logger=none", "data.num_images={train: 16, val: 4, test: 4}"),
        *("trainer.max_epochs=2", "callbacks.image_logger=null", "data.batch_size=4"),
        *("model=resnet20", "model.network.depth=8"),
    )
    for name in ("one", "two"):
        outcome = command(*words, f"name={name}")
        assert outcome.code == 0, outcome.err
    one, two = (tmp_path / "outputs" / name / "model.pth" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
