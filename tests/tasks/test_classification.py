"""Classification: losses, metrics and images."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.builders import classification_task, label_batch
from vision_lab.core.arguments import ArgumentError
from vision_lab.core.spec import DataSpec
from vision_lab.losses.classes import CrossEntropy

LOGITS = torch.tensor(
    [[4.0, 1.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [0.0, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)


def test_forward_normalizes(spec: DataSpec):
    made = classification_task(
        replace(spec, mean=(0.1, 0.2, 0.3), std=(0.5,)), network=nn.Identity()
    )
    images = torch.rand(2, 3, 4, 4)
    expected = (images - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / 0.5
    before = images.clone()
    assert torch.allclose(made(images), expected)
    assert torch.equal(images, before)
    whole = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    assert torch.allclose(made(whole), made(whole.float() / 255), atol=1e-6)
    assert list(made.state_dict()) == []


def test_cross_entropy_and_its_options(spec: DataSpec):
    labels = label_batch([0, 1, 2, 3])
    plain = classification_task(spec).losses(LOGITS, labels)["loss"]
    assert plain.item() == pytest.approx(nn.functional.cross_entropy(LOGITS, labels.targets).item())
    smooth = classification_task(spec, loss=CrossEntropy(label_smoothing=0.1)).losses(
        LOGITS, labels
    )["loss"]
    assert smooth.item() == pytest.approx(
        nn.functional.cross_entropy(LOGITS, labels.targets, label_smoothing=0.1).item()
    )
    weighted = classification_task(spec, class_weights=[0, 0, 1, 0]).losses(LOGITS, labels)["loss"]
    assert weighted.item() == pytest.approx(
        nn.functional.cross_entropy(LOGITS[2:3], labels.targets[2:3]).item()
    )


def test_auxiliary_classifiers_are_weighted(spec: DataSpec):
    labels = label_batch([0, 1, 2, 3])
    made = classification_task(spec, aux_weight=0.5)
    one = made.losses(LOGITS, labels)["loss"].item()
    assert made.losses((LOGITS, LOGITS, LOGITS), labels)["loss"].item() == pytest.approx(2 * one)
    assert torch.equal(made.decode((LOGITS, -LOGITS)), made.decode(LOGITS))


def test_logits_of_hugging_faces_models_are_used(spec: DataSpec):
    labels = label_batch([0, 1, 2, 3])
    made = classification_task(spec)
    outputs = SimpleNamespace(logits=LOGITS)
    assert made.losses(outputs, labels)["loss"] == made.losses(LOGITS, labels)["loss"]
    assert torch.equal(made.decode(outputs), made.decode(LOGITS))


def test_metrics_equal_those_by_hand(spec: DataSpec):
    """Four of six are correct; class 2 is never predicted."""
    made = classification_task(spec)
    metrics = made.metrics("val")
    predicted = [0, 1, 1, 3, 0, 1]
    truth = [0, 1, 2, 3, 0, 2]
    confident = torch.full((6, 4), 0.1)
    confident[range(6), predicted] = 0.7
    metrics.update(confident, torch.tensor(truth))
    values = metrics.compute()
    assert values["accuracy"].item() == pytest.approx(4 / 6)
    assert values["f1"].item() == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert values["calibration_error"].item() == pytest.approx(abs(4 / 6 - 0.7), abs=1e-6)
    assert values["confusion"].tolist() == [[2, 0, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]]
    assert "top5" not in values
    made.results["val"] = values
    assert set(made.scalar_metrics("val")) == {"accuracy", "f1", "calibration_error"}


def test_top5_is_reported_for_more_than_five_classes(spec: DataSpec):
    six = replace(spec, class_names=tuple("abcdef"), num_classes=6)
    metrics = classification_task(six, network=nn.Identity()).metrics("test")
    probabilities = torch.tensor([[0.3, 0.25, 0.2, 0.15, 0.1, 0.0]]).expand(2, -1)
    metrics.update(probabilities, torch.tensor([4, 5]))
    assert metrics.compute()["top5"].item() == 0.5
    assert set(classification_task(six, network=nn.Identity()).metrics("train")) == {"accuracy"}


def test_accuracy_and_top5_differ_after_a_batch_without_errors(spec: DataSpec):
    six = replace(spec, class_names=tuple("abcdef"), num_classes=6)
    metrics = classification_task(six, network=nn.Identity()).metrics("test")
    metrics.update(torch.eye(6), torch.arange(6))
    metrics.update(torch.eye(6), torch.arange(6).roll(1))
    values = metrics.compute()
    assert values["accuracy"].item() == 0.5
    assert values["top5"].item() > 0.5


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"class_weights": [1, 2]},
            r"class_weights=\[1,2\]: type one number for each of ash, beech, cedar, date",
        ),
        ({"class_weights": [0, 0, 0, 0]}, r"type a number above 0 for at least one class"),
    ],
)
def test_values_out_of_range_are_reported(spec: DataSpec, changes: dict[str, object], text: str):
    with pytest.raises(ArgumentError, match=text):
        classification_task(spec, **changes)
