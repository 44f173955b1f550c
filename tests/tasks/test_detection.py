"""Detection: metrics, coordinates and drawings."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.io import decode_jpeg, read_file

from tests.builders import box_spec, box_targets
from vision_lab.core.batch import Batch, BoxTargets, Detections, Sample
from vision_lab.tasks.detection import DetectionTask, match_detections
from vision_lab.training.lr_schedules import Constant


class Network(nn.Module):
    """A detector with given predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.found: list[Detections] = []

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale

    def losses(self, outputs: Tensor, targets: list[BoxTargets]) -> dict[str, Tensor]:
        return {"there": outputs.mean(), "box": outputs.mean() * len(targets)}

    def decode(self, outputs: Tensor) -> list[Detections]:
        return self.found


def found(rows: list[list[float]]) -> Detections:
    """Return detections from rows of label, box and score."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, 1:5], table[:, 0].long(), table[:, 5])


@pytest.fixture
def task() -> DetectionTask:
    return DetectionTask(
        network=Network(),
        spec=box_spec((40, 40)),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        schedule=Constant(),
        monitor="val/map",
        monitor_mode="max",
        seed=0,
        draw_score_threshold=0.3,
    )


@pytest.fixture
def batch() -> Batch:
    """Return a batch of two images of 80 x 40 pixels, letterboxed to 40 x 40."""
    targets = [
        box_targets([[4, 2, 20, 15]], [1]),
        box_targets([[0, 0, 10, 10], [20, 5, 40, 20]], [0, 2], [False, True]),
    ]
    targets = [replace(each, area=torch.full((len(each),), 400.0)) for each in targets]
    samples = [Sample(k, f"{k}.png", (40, 80), (20, 40)) for k in range(2)]
    return Batch(torch.randint(0, 255, (2, 3, 40, 40), dtype=torch.uint8), targets, samples)


def test_losses_of_the_detector_are_summed(task: DetectionTask, batch: Batch):
    losses = task.losses(task(batch.images), batch)
    assert losses.keys() == {"loss", "there", "box"}
    assert losses["loss"] == losses["there"] + losses["box"]


def test_detection_metrics_are_in_original_pixels(task: DetectionTask, batch: Batch):
    scores = task.metrics("val")
    assert len(task.metrics("train")) == 0  # augmented images are not measured
    predictions = [
        found([[1, 4, 2, 20, 15, 0.9]]),
        found([[0, 0, 0, 10, 10, 0.8], [2, 22, 6, 39, 19, 0.7]]),
    ]
    task.update_metrics(scores, batch, predictions)
    came_to = scores.compute()
    assert came_to["map"] == 1.0  # what is in the crowd is no mistake
    assert came_to["detections"][0].tolist() == pytest.approx([0, 1, 8, 4, 40, 30, 0.9])
    assert came_to["ground_truth"][0].tolist() == [0, 1, 8, 4, 40, 30, 400, 0]
    assert came_to["ground_truth"][2].tolist() == [1, 2, 40, 10, 80, 40, 400, 1]
    assert came_to["images"].tolist() == [[0, 40, 80], [1, 40, 80]]
    task.results["val"] = came_to
    assert task.per_class("val")["b"]["objects"] == 1
    assert set(task.per_class("val")) == {"a", "b"}
    documents = task.export("val", ["x.png", "y.png"])
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
    assert {"precision_recall", "precision"} <= set(task.figures("val"))


def test_rows_list_detections_above_the_threshold_and_images_without(
    task: DetectionTask, batch: Batch
):
    rows = task.table_rows(
        batch, [found([[1, 4, 2, 20, 15, 0.9], [0, 1, 1, 5, 5, 0.2]]), found([])]
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


def test_boxes_are_drawn_on_the_original_image(task: DetectionTask, batch: Batch, tmp_path: Path):
    predictions = [found([[1, 4, 2, 20, 15, 0.9]]), found([])]
    images = [torch.full((3, 400, 800), 255, dtype=torch.uint8)] * 2
    task.save_predictions(batch, predictions, tmp_path, names=["one", "two"], images=iter(images))
    # The files are ten times as large as the samples say, so that the box of (8, 4) to (40, 30) stays near the corner.
    drawn, empty = (
        decode_jpeg(read_file(str(tmp_path / "images" / f"{name}.jpg"))) for name in ("one", "two")
    )
    assert drawn.shape == (3, 400, 800)
    assert (drawn[:, :60, :60] < 128).any()
    assert (drawn[:, 100:, 200:] > 240).all()
    assert (empty > 240).all()


def test_predictions_are_drawn_beside_known_targets(task: DetectionTask, batch: Batch):
    predictions = [found([[1, 4, 2, 20, 15, 0.9]]), found([[0, 20, 5, 40, 20, 0.6]])]
    drawn = task.draw_predictions(batch, predictions)
    assert len({each.shape for each in drawn}) == 1
    assert drawn[0].shape[0] == 3
    task.collect_examples("val", batch, predictions)
    images = task.worst["val"].images()
    assert torch.equal(images[0], drawn[1])  # one missed and one wrong; the other image is right
    task.reset_examples("val")
    assert task.worst == {}


def test_detections_are_matched_by_descending_score():
    truth = box_targets(
        [[0, 0, 20, 20], [50, 50, 70, 70], [30, 0, 60, 30]], [0, 1, 0], [False, False, True]
    )
    predictions = found(
        [
            [0, 0, 0, 20, 20, 0.9],  # right
            [0, 1, 0, 21, 20, 0.8],  # the same object again
            [0, 50, 50, 70, 70, 0.7],  # of another class
            [0, 32, 0, 60, 30, 0.6],  # in a crowd
            [1, 80, 80, 90, 90, 0.5],  # nothing is there
        ]
    )
    wrong, missed = match_detections(predictions, truth)
    assert wrong.tolist() == [False, True, True, False, True]
    assert missed.tolist() == [False, True, False]
    large = box_targets([[0, 0, 100, 100]], [0], [True])  # of whom one is found
    assert match_detections(found([[0, 40, 40, 50, 60, 0.9]]), large)[0].tolist() == [False]
    wrong, missed = match_detections(found([]), truth)
    assert len(wrong) == 0
    assert missed.tolist() == [True, True, False]


def test_features_do_not_depend_on_batch_size(task: DetectionTask, batch: Batch):
    predictions = [found([[1, 4, 2, 20, 15, 0.9]]), found([[0, 0, 0, 10, 10, 0.8]])]
    together, one_by_one = task.metrics("val"), task.metrics("val")
    task.update_metrics(together, batch, predictions)
    for k in (1, 0):
        single = Batch(batch.images[k : k + 1], batch.targets[k : k + 1], batch.samples[k : k + 1])
        task.update_metrics(one_by_one, single, predictions[k : k + 1])
    assert together.compute()["map"] == one_by_one.compute()["map"]
