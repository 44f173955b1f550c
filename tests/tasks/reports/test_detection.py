"""The report of detection: boxes in original pixels, drawings, files in COCO's format."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.io import decode_jpeg, read_file

from tests.builders import box_spec, detections, letterboxed_batch
from vision_lab.core.batch import Batch
from vision_lab.core.files import write_file
from vision_lab.metrics.box_scaling import in_file_pixels, scale_to_file
from vision_lab.metrics.detection import BoxMeanAveragePrecision
from vision_lab.tasks.reports.detection import DetectionReport


@pytest.fixture
def report() -> DetectionReport:
    return DetectionReport(box_spec((40, 40)), draw_score_threshold=0.3)


@pytest.fixture
def batch() -> Batch:
    return letterboxed_batch()


def test_rows_list_detections_above_the_threshold_and_images_without(
    report: DetectionReport, batch: Batch
):
    rows = report.table_rows(
        batch, [detections([[1, 4, 2, 20, 15, 0.9], [0, 1, 1, 5, 5, 0.2]]), detections([])]
    )
    assert rows[0] == {
        "path": "0.png",
        "class": "b",
        "score": pytest.approx(0.9),
        **sides(8, 4, 40, 30),
    }
    assert rows[1] == {"path": "1.png", "class": "", "score": "", **sides("", "", "", "")}
    assert len(rows) == 2


def sides(*values: object) -> dict[str, object]:
    return dict(zip(("x1", "y1", "x2", "y2"), values, strict=True))


def test_boxes_are_drawn_on_the_original_image(
    report: DetectionReport, batch: Batch, tmp_path: Path
):
    predictions = [detections([[1, 4, 2, 20, 15, 0.9]]), detections([])]
    images = [lambda: torch.full((3, 400, 800), 255, dtype=torch.uint8)] * 2
    for name, render in report.render_predictions(
        batch, predictions, names=["one", "two"], images=images
    ):
        write_file(tmp_path, name, render())
    # The files are ten times as large as the samples say, so that the box of (8, 4) to (40, 30) stays near the corner.
    drawn, empty = (
        decode_jpeg(read_file(str(tmp_path / "images" / f"{name}.jpg"))) for name in ("one", "two")
    )
    assert drawn.shape == (3, 400, 800)
    assert (drawn[:, :60, :60] < 128).any()
    assert (drawn[:, 100:, 200:] > 240).all()
    assert (empty > 240).all()


def test_predictions_are_drawn_beside_known_targets(report: DetectionReport, batch: Batch):
    predictions = [detections([[1, 4, 2, 20, 15, 0.9]]), detections([[0, 20, 5, 40, 20, 0.6]])]
    drawn = report.draw(batch, predictions, with_targets=True)
    assert len({each.shape for each in drawn}) == 1
    assert drawn[0].shape[0] == 3
    report.collect("val", batch, predictions)
    images = report.worst["val"].sorted_samples()
    assert torch.equal(images[0], drawn[1])  # one missed and one wrong; the other image is right
    report.start("val")
    assert report.worst == {}


def test_results_by_class_and_for_other_programs(report: DetectionReport, batch: Batch):
    predictions = [
        detections([[1, 4, 2, 20, 15, 0.9]]),
        detections([[0, 0, 0, 10, 10, 0.8], [2, 22, 6, 39, 19, 0.7]]),
    ]
    metric = BoxMeanAveragePrecision(report.spec.num_classes)
    targets = []
    for target, sample in zip(batch.targets, batch.samples, strict=True):
        targets.append(replace(target, boxes=scale_to_file(target.boxes, sample)))
    metric.update(list(in_file_pixels(predictions, batch.samples)), targets)
    results = metric.compute()
    assert report.per_class(results)["b"]["objects"] == 1
    assert set(report.per_class(results)) == {"a", "b"}
    documents = report.export("val", results, ["x.png", "y.png"])
    assert documents["detections"][0] == {
        "image_id": 1,
        "category_id": 2,
        "bbox": [8.0, 4.0, 32.0, 26.0],
        "score": pytest.approx(0.9),
    }
    assert [image["file_name"] for image in documents["ground_truth"]["images"]] == [
        "x.png",
        "y.png",
    ]
    assert [each["iscrowd"] for each in documents["ground_truth"]["annotations"]] == [0, 0, 1]
    assert {"precision_recall", "precision"} <= set(report.figures("val", results))


def test_predictions_are_exported_as_annotations(report: DetectionReport, batch: Batch):
    report.collect("predict", batch, [detections([[1, 4, 2, 20, 15, 0.9]]), detections([])])
    exported = report.export("predict", {}, ["x.png", "y.png"])["detections"]
    assert [image["file_name"] for image in exported["images"]] == ["x.png", "y.png"]
    assert [annotation["bbox"] for annotation in exported["annotations"]] == [[8, 4, 32, 26]]
