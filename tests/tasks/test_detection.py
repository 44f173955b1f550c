"""Detection: losses and metrics."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.builders import box_spec, detections, letterboxed_batch
from vision_lab.core.batch import Batch, BoxTargets, Detections
from vision_lab.tasks.detection import DetectionTask
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
    )


@pytest.fixture
def batch() -> Batch:
    return letterboxed_batch()


def test_losses_of_the_detector_are_summed(task: DetectionTask, batch: Batch):
    losses = task.losses(task(batch.images), batch)
    assert losses.keys() == {"loss", "there", "box"}
    assert losses["loss"] == losses["there"] + losses["box"]


def test_detection_metrics_are_in_original_pixels(task: DetectionTask, batch: Batch):
    scores = task.metrics("val")
    assert len(task.metrics("train")) == 0  # augmented images are not measured
    predictions = [
        detections([[1, 4, 2, 20, 15, 0.9]]),
        detections([[0, 0, 0, 10, 10, 0.8], [2, 22, 6, 39, 19, 0.7]]),
    ]
    task.update_metrics(scores, batch, predictions)
    came_to = scores.compute()
    assert came_to["map"] == 1.0  # what is in the crowd is no mistake
    assert came_to["detections"][0].tolist() == pytest.approx([0, 1, 8, 4, 40, 30, 0.9])
    assert came_to["ground_truth"][0].tolist() == [0, 1, 8, 4, 40, 30, 400, 0]
    assert came_to["ground_truth"][2].tolist() == [1, 2, 40, 10, 80, 40, 400, 1]
    assert came_to["images"].tolist() == [[0, 40, 80], [1, 40, 80]]


def test_features_do_not_depend_on_batch_size(task: DetectionTask, batch: Batch):
    predictions = [detections([[1, 4, 2, 20, 15, 0.9]]), detections([[0, 0, 0, 10, 10, 0.8]])]
    together, one_by_one = task.metrics("val"), task.metrics("val")
    task.update_metrics(together, batch, predictions)
    for k in (1, 0):
        single = Batch(batch.images[k : k + 1], batch.targets[k : k + 1], batch.samples[k : k + 1])
        task.update_metrics(one_by_one, single, predictions[k : k + 1])
    assert together.compute()["map"] == one_by_one.compute()["map"]
