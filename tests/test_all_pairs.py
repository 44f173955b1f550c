"""Every head on every model of ``conf/``: on the meta device, and trained by ``make test-all``."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.builders import FAMILIES, GROUPS, WITHOUT_FEATURE_MAPS, box_targets, composed, without
from vision_lab import build
from vision_lab.config.instantiation import instantiate
from vision_lab.core.arguments import ArgumentError
from vision_lab.core.protocols import Backbone, Head
from vision_lab.core.spec import DataSpec
from vision_lab.heads.torchvision_detectors import DenseOutputs
from vision_lab.heads.yolo import YoloOutputs

pytestmark = pytest.mark.usefixtures("hydra_resolvers")

MODELS = [
    choice.name
    for choice in GROUPS["model"]
    if not choice.target_types and choice.name not in WITHOUT_FEATURE_MAPS
]

HEADS = {
    target: [choice.name for choice in GROUPS["head"] if target in choice.target_types]
    for target in ("labels", "masks", "boxes")
}

NOT_DILATED = "output_stride=8: type null, or choose another model: this one cannot be dilated"

IMPOSSIBLE = {
    ("inception_v3", "rcnn"): "window_size=64: type a larger one",
    # It pools beside its convolutions.
    ("inception_v3", "fcn"): NOT_DILATED,
    ("inception_v3", "deeplabv3"): NOT_DILATED,
}
"""(model, head): the error of a combination that is not possible."""

POSSIBLE = {
    target: [
        (model, name)
        for model in MODELS
        for name in HEADS[target]
        if (model, name) not in IMPOSSIBLE
    ]
    for target in ("masks", "boxes")
}


DILATING = ("fcn", "deeplabv3")
"""Heads that change the backbone they are put on, and have an auxiliary head while training."""

PROPOSAL_HEADS = ("rcnn", "fast_rcnn")
"""Detectors whose networks are applied to proposals, or are a part of the backbone only."""

BACKBONE_PREFIX = {"masks": "backbone.", "boxes": "backbone.body."}
"""What the keys of a backbone begin with."""


def test_the_number_of_combinations():
    assert {target: len(heads) for target, heads in HEADS.items()} == {
        "labels": 1,
        "masks": 5,
        "boxes": 7,
    }
    assert len(set(FAMILIES) & set(MODELS)) == len(FAMILIES) == 18
    assert len(MODELS) * len(HEADS["masks"]) == 260
    assert len(MODELS) * len(HEADS["boxes"]) == 364
    assert {target: len(pairs) for target, pairs in POSSIBLE.items()} == {
        "masks": 258,
        "boxes": 363,
    }


def backbone(model: str, size: tuple[int, int], *, device: str) -> tuple[Backbone, DataSpec]:
    config = composed("task=segment", f"model={model}")
    spec = replace(build.spec(config), image_size=size, class_names=tuple("abcdefg"), num_classes=7)
    if model == "inception_v3":
        config = config.updated(
            {"model.network.aux_logits": False}
        )  # its auxiliary classifier, which no head uses, wants 299 pixels
    with torch.device(device):
        return instantiate(without(config["model"], "target_type"), "model")(spec), spec


@cache
def head(name: str) -> Head:
    settings = without(
        composed(f"head={name}")["head"], "target_type", "weights", "torchvision_name"
    )
    return instantiate({**settings, "_partial_": True}, "head")


def outputs_of(found: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return list(found) if isinstance(found, tuple) else [found]


@pytest.fixture
def no_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip normalization, which takes half of the time and changes no shape."""
    monkeypatch.setattr(F, "batch_norm", lambda images, *_, **__: images)


EVERYDAY = "alexnet resnet20 inception_v3 mobilenet_v3_small".split()
"""Models that differ in how features are found: without batch norm, residual, small, branched."""


def with_marks(model: str) -> Any:
    if model in EVERYDAY:
        return model
    if model in FAMILIES:
        return pytest.param(model, marks=pytest.mark.slow)
    return pytest.param(model, marks=[pytest.mark.slow, pytest.mark.exhaustive])


@pytest.mark.parametrize("model", map(with_marks, MODELS))
def test_every_head_works_on_every_model(model: str, no_norm: None):
    """On the meta device: shapes for odd sizes, and equal keys of the backbone under all heads."""
    made, spec = backbone(model, (129, 171), device="meta")
    images = torch.empty(2, 3, 129, 171, device="meta")
    backbones: dict[str, set[frozenset[str]]] = {"masks": set(), "boxes": set()}
    # One backbone for all, for it takes long to make; those that dilate it come last.
    for target, names in (
        ("boxes", HEADS["boxes"]),
        ("masks", sorted(HEADS["masks"], key=DILATING.count)),
    ):
        for name in names:
            if (model, name) in IMPOSSIBLE:
                with pytest.raises(ArgumentError, match=IMPOSSIBLE[model, name]):
                    head(name)(*backbone(model, (129, 171), device="meta"))
                continue
            with torch.device("meta"):
                network = head(name)(made, spec).train()
            outputs = network(images)
            keys = network.state_dict()
            if name in PROPOSAL_HEADS:
                assert count_outputs(outputs) == 1
                continue
            backbones[target].add(
                frozenset(key for key in keys if key.startswith(BACKBONE_PREFIX[target]))
            )
            if target == "boxes":
                assert count_outputs(outputs) > 0
            else:
                found = outputs_of(outputs)
                assert [output.shape for output in found] == [(2, 7, 129, 171)] * len(found)
                assert len(found) == (2 if name in DILATING else 1)
    assert [len(each) for each in backbones.values()] == [1, 1]
    assert all(backbones["boxes"])
    assert all(backbones["masks"])


def count_outputs(outputs: Any) -> int:
    """Return the number of predictions, or of feature maps for detectors with two stages."""
    if isinstance(outputs, YoloOutputs):
        assert outputs.objectness.shape[1] == len(outputs.centers) == outputs.boxes.shape[1]
        return len(outputs.centers)
    if isinstance(outputs, DenseOutputs):
        assert {score.shape[1] for score in outputs.scores.values()} == {len(outputs.anchors[0])}
        return len(outputs.anchors[0])
    images, maps = outputs
    assert len({each.shape[1] for each in maps.values()}) == 1
    assert len(images.image_sizes) == 2
    return len(maps)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(("model", "name"), POSSIBLE["masks"])
def test_every_segmentation_head_trains(model: str, name: str):
    """Forward and backward pass: every parameter has a finite gradient."""
    size = (65, 97) if model != "inception_v3" else (97, 129)
    made, spec = backbone(model, size, device="cpu")
    network = head(name)(made, spec).train()
    found = outputs_of(network(torch.rand(2, 3, *size)))
    assert all(output.shape == (2, 7, *size) for output in found)
    sum(output.square().mean() for output in found).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert [
        name
        for name, gradient in gradients.items()
        if gradient is None or not gradient.isfinite().all()
    ] == []


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(("model", "name"), POSSIBLE["boxes"])
def test_every_detector_trains_and_predicts(model: str, name: str):
    """A training step on images with zero, one and twenty objects, and a prediction."""
    size = (65, 97) if model != "inception_v3" else (97, 129)
    made, spec = backbone(model, size, device="cpu")
    network = head(name)(made, spec).train()
    many = [[3 * k, 2 * k, 3 * k + 20, 2 * k + 25] for k in range(20)]
    targets = [
        box_targets([], []),
        box_targets([[10, 10, 60, 50]], [2]),
        box_targets(many, [k % 7 for k in range(20)]),
    ]
    losses = network.losses(network(torch.rand(3, 3, *size)), targets)
    torch.stack([*losses.values()]).sum().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert [
        name
        for name, gradient in gradients.items()
        if gradient is None or not gradient.isfinite().all()
    ] == []
    with torch.no_grad():
        (found,) = network.eval().decode(network(torch.rand(1, 3, *size)))
    assert (found.boxes >= 0).all()
    assert (found.boxes <= torch.tensor([size[1], size[0]] * 2)).all()
