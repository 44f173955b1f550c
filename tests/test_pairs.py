"""Every head of a task on every model of ``conf/``: built without numbers each day, really run by ``make test-all``."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor

from tests.test_conf import GROUPS, _hydra, composed  # noqa: F401 - the fixture is for this file too
from vision_lab import build
from vision_lab.types import Backbone, ConfigurationError, DataSpec, Head

MODELS = [choice.name for choice in GROUPS["model"]]

HEADS = {
    target: [choice.name for choice in GROUPS["head"] if choice.target == target] for target in ("labels", "masks")
}

IMPOSSIBLE = {
    ("inception_v3", "fcn"): "head.output_stride=8 cannot be had of this model",  # it pools beside its convolutions
    ("inception_v3", "deeplabv3"): "head.output_stride=8 cannot be had of this model",
}
"""(model, head): what is said of a pair that cannot work as it stands."""


POSSIBLE = [(model, name) for model in MODELS for name in HEADS["masks"] if (model, name) not in IMPOSSIBLE]


def test_how_many_pairs_there_are():
    assert {target: len(heads) for target, heads in HEADS.items()} == {"labels": 1, "masks": 5}
    assert len(MODELS) * len(HEADS["masks"]) == 255
    assert len(POSSIBLE) == 253


def backbone(model: str, size: tuple[int, int], *, device: str) -> tuple[Backbone, DataSpec]:
    config = composed("task=segment", f"model={model}")
    spec = replace(build.spec(config), image_size=size, class_names=tuple("abcdefg"), num_classes=7)
    if model == "inception_v3":
        config.model.classifier.aux_logits = False  # its auxiliary classifier, which no head uses, wants 299 pixels
    with torch.device(device):
        return instantiate(config.model, _partial_=True, _convert_="all")(spec), spec


@cache
def head(name: str) -> Head:
    settings = {key: value for key, value in composed(f"head={name}").head.items() if key not in ("target", "weights")}
    return instantiate(settings, _partial_=True, _convert_="all")


def outputs_of(found: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("model", MODELS)
def test_every_head_of_masks_goes_on_it(model: str):
    """Without numbers: shapes of an odd size, and keys under which backbones of one model load into each other."""
    made, spec = backbone(model, (129, 171), device="meta")
    trunks = set()
    possible = [name for name in HEADS["masks"] if (model, name) not in IMPOSSIBLE]
    for name in set(HEADS["masks"]) - set(possible):
        with pytest.raises(ConfigurationError, match=IMPOSSIBLE[model, name]):
            head(name)(*backbone(model, (129, 171), device="meta"))
    # One backbone for all, for it takes long to make; those that dilate it come last.
    for name in sorted(possible, key=lambda name: name in ("fcn", "deeplabv3")):
        with torch.device("meta"):
            network = head(name)(made, spec).train()
        found = outputs_of(network(torch.empty(2, 3, 129, 171, device="meta")))  # twice as quick outside
        assert [output.shape for output in found] == [(2, 7, 129, 171)] * len(found)
        assert len(found) == (2 if name in ("fcn", "deeplabv3") else 1)
        state = network.state_dict()
        trunks.add(frozenset(key for key in state if key.startswith("backbone.")))
        assert any(value.shape[:1] == (7,) for key, value in state.items() if not key.startswith("backbone."))
    assert len(trunks) == 1


@pytest.mark.slow
@pytest.mark.pairs
@pytest.mark.parametrize(("model", "name"), POSSIBLE)
def test_every_pair_learns(model: str, name: str):
    """Forward and backward on real numbers: every parameter gets a slope, and none is NaN."""
    size = (65, 97) if model != "inception_v3" else (97, 129)
    made, spec = backbone(model, size, device="cpu")
    network = head(name)(made, spec).train()
    found = outputs_of(network(torch.rand(2, 3, *size)))
    assert all(output.shape == (2, 7, *size) for output in found)
    sum(output.square().mean() for output in found).backward()
    slopes = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert [name for name, slope in slopes.items() if slope is None or not slope.isfinite().all()] == []
