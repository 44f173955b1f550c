"""Segmentation: losses, ignored pixels, prediction of any size, images."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.builders import mask_batch, mask_example
from vision_lab.core.arguments import ArgumentError
from vision_lab.core.batch import Batch, Sample
from vision_lab.core.spec import IGNORE_INDEX, DataSpec
from vision_lab.losses.classes import CrossEntropy, Dice, WeightedSum
from vision_lab.tasks.logits import average_logits
from vision_lab.tasks.segmentation import SegmentationTask
from vision_lab.training.lr_schedules import Constant


def task(spec: DataSpec, **changes) -> SegmentationTask:
    arguments = {
        "network": nn.Conv2d(3, spec.num_classes, 1),
        "spec": spec,
        "optimizer": torch.optim.SGD,
        "schedule": Constant(),
        "monitor": "val/miou",
        "monitor_mode": "max",
        "seed": 0,
        "loss": CrossEntropy(),
        "class_weights": None,
        "aux_weight": 0.5,
    }
    return SegmentationTask(**(arguments | changes))


def test_losses_are_summed_and_auxiliary_heads_weighted(mask_spec: DataSpec):
    logits, given = mask_example()
    single = [
        task(mask_spec, loss=loss).losses(logits, given)["loss"]
        for loss in (CrossEntropy(), Dice())
    ]
    losses = {"cross_entropy": CrossEntropy(), "dice": Dice()}
    made = task(mask_spec, loss=WeightedSum(losses, {"dice": 2.0}), aux_weight=0.5)
    found = made.losses((logits, logits), given)
    total = single[0] + 2 * single[1]
    assert found["loss"].item() == pytest.approx(1.5 * total.item())
    assert set(found) == {"loss", "cross_entropy", "dice", "auxiliary"}
    assert torch.equal(made.decode((logits, -logits)), made.decode(logits))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"class_weights": [0.0, 0.0, 0.0]},
            "class_weights=[0.0,0.0,0.0]: type a number above 0 for at least one class",
        ),
        (
            {"class_weights": [1.0]},
            "class_weights=[1.0]: type one number for each of sky, sea, sand",
        ),
        (
            {"class_weights": "auto", "loss": Dice()},
            "class_weights=auto: type null: the loss has no class weights (an attribute `weight`)",
        ),
    ],
)
def test_unusable_training_settings_are_refused(mask_spec: DataSpec, changes: dict, message: str):
    with pytest.raises(ArgumentError) as caught:
        task(mask_spec, **changes)
    assert str(caught.value) == message


def test_any_loss_of_torch_can_be_used(mask_spec: DataSpec):
    logits, given = mask_example()
    torchs = nn.CrossEntropyLoss(ignore_index=IGNORE_INDEX)
    found = task(mask_spec, loss=torchs, class_weights=[1.0, 2.0, 3.0]).losses(logits, given)
    ours = task(mask_spec, class_weights=[1.0, 2.0, 3.0]).losses(logits, given)
    assert list(found) == ["loss"]
    assert found["loss"].item() == pytest.approx(ours["loss"].item())


def test_predictions_of_flipped_images_are_flipped_back(mask_spec: DataSpec):
    class Left(nn.Module):
        """Predicts sea in the left half of any image."""

        def forward(self, images):
            logits = torch.zeros(len(images), 3, *images.shape[-2:])
            logits[:, 1, :, : images.shape[-1] // 2] = 4.0
            return logits

    made = task(mask_spec, network=Left())
    images = torch.rand(1, 3, 4, 8)
    one, both = made.forward_tta(images).softmax(1), None
    made.enable_flip_tta()
    both = made.forward_tta(images).softmax(1)
    assert torch.allclose(both, (one + one.flip(-1)) / 2, atol=1e-6)
    assert torch.allclose(both, both.flip(-1), atol=1e-6)
    sure = torch.tensor([[[[0.0]], [[200.0]], [[0.0]]]])
    assert average_logits(sure, sure).isfinite().all()


def test_predictions_have_the_size_of_the_file(mask_spec: DataSpec):
    made = task(mask_spec)
    given = mask_batch(torch.full((2, 8, 8), IGNORE_INDEX))
    samples = [Sample(0, None, (50, 30)), Sample(1, None, (7, 9))]
    found = made.predict_step(replace(given, samples=samples), 0)
    assert [tuple(mask.shape) for mask in found] == [(50, 30), (7, 9)]
    logits = made(given.images)
    wanted = F.interpolate(logits[:1].softmax(1), (50, 30), mode="bilinear").argmax(1)[0]
    assert torch.equal(found[0].long(), wanted)


class Near(nn.Module):
    """A network with a receptive field of three pixels in each direction."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)))

    def forward(self, images):
        return self.layers(images)


@pytest.mark.parametrize("size", [(8, 8), (20, 33), (5, 40), (3, 4)])
def test_tiled_predictions_equal_whole_predictions(mask_spec: DataSpec, size: tuple[int, int]):
    """There are no seams if tiles overlap by twice the receptive field."""
    made = task(replace(mask_spec, image_size=(16, 16)), network=Near())
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    given = Batch(image, torch.full((1, *size), IGNORE_INDEX), [Sample(0, None, size)])
    made.enable_tiling(0.5)
    (found,) = made.predict_step(given, 0)
    assert found.shape == size
    whole = made.decode(made(image))[0]
    inside = (
        slice(0, size[0] - 3 if size[0] < 16 else None),
        slice(0, size[1] - 3 if size[1] < 16 else None),
    )
    assert torch.equal(found[inside], whole[inside])
