"""The report of classification: mistakes, tables, metrics by class."""

import pytest
import torch

from tests.builders import label_batch
from vision_lab.core.batch import Batch
from vision_lab.core.spec import DataSpec
from vision_lab.tasks.reports.classification import NUM_MISTAKES_DRAWN, ClassificationReport

LOGITS = torch.tensor(
    [[4.0, 1.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [0.0, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)


def test_metrics_by_class(spec: DataSpec):
    """Four of six are correct; class 2 is never predicted."""
    confusion = torch.tensor([[2, 0, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]])
    found = ClassificationReport(spec).per_class({"confusion": confusion})
    assert found["beech"] == {"accuracy": 1.0, "precision": pytest.approx(1 / 3), "samples": 1}
    assert found["cedar"] == {"accuracy": 0.0, "precision": 0.0, "samples": 2}


def test_the_most_confident_errors_are_drawn(spec: DataSpec):
    report = ClassificationReport(spec)
    probabilities = torch.full((40, 4), 0.0)
    probabilities[:, 1] = torch.linspace(0.5, 0.9, 40)
    probabilities[:, 0] = 1 - probabilities[:, 1]
    for half in (slice(0, 20), slice(20, 40)):
        many = label_batch([2] * 20)
        report.collect("val", many, probabilities[half])
    kept = report.mistakes["val"]._heap
    assert len(kept) == NUM_MISTAKES_DRAWN
    assert min(sure for sure, _, _ in kept) == pytest.approx(
        probabilities[40 - NUM_MISTAKES_DRAWN, 1].item()
    )
    results = {"confusion": torch.eye(4, dtype=torch.int64)}
    assert set(report.figures("val", results)) == {"confusion", "mistakes"}
    assert set(report.figures("val", results)) == {"confusion"}  # drawn once, then forgotten


class LeftHalf:
    """What would be a class activation map."""

    layer = "features"

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.labels = labels.tolist()
        heat = torch.zeros(len(images), *images.shape[-2:])
        heat[..., : images.shape[-1] // 2] = 1
        return heat


def test_mistakes_among_test_images_are_drawn_with_their_maps(spec: DataSpec):
    report = ClassificationReport(spec)
    report.heat_maps = LeftHalf()
    results = {"confusion": torch.eye(4, dtype=torch.int64)}
    sheets = {}
    for split in ("val", "test"):
        report.collect(split, label_batch([2, 2]), LOGITS[:2].softmax(dim=1))
        sheets[split] = report.figures(split, results)["mistakes"]
    assert sheets["test"].shape[2] > 1.8 * sheets["val"].shape[2]
    assert report.heat_maps.labels == [0, 1]  # the predicted classes, the most confident first


def test_correct_predictions_are_not_listed(spec: DataSpec):
    report = ClassificationReport(spec)
    report.collect("val", label_batch([0, 1]), LOGITS[:2].softmax(dim=1))
    assert report.mistakes["val"].sorted_samples() == []


def test_table_rows_and_drawings(spec: DataSpec):
    report = ClassificationReport(spec)
    one = label_batch([0, 3], paths=["a.png", "b.png"])
    probabilities = LOGITS[[0, 2]].softmax(dim=1)
    rows = report.table_rows(one, probabilities)
    assert [row["path"] for row in rows] == ["a.png", "b.png"]
    assert [row["class"] for row in rows] == ["ash", "beech"]
    assert rows[0]["class_2"] == "beech"
    assert sum(
        float(rows[0][f"confidence{suffix}"]) for suffix in ("", "_2", "_3", "_4")
    ) == pytest.approx(1)
    right, wrong = report.draw(one, probabilities, with_targets=True)
    unknown = report.draw(
        Batch(one.images, torch.tensor([-1, -1]), one.samples), probabilities, with_targets=False
    )[0]
    assert right.shape == wrong.shape == unknown.shape
    assert not torch.equal(right, unknown)
