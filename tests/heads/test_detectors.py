"""Detectors: equality with torchvision's, and the contract with the task."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import detection

from tests.builders import box_spec, box_targets
from vision_lab.core.arguments import ArgumentError
from vision_lab.core.errors import ConfigurationError
from vision_lab.heads.faster_rcnn import faster_rcnn
from vision_lab.heads.fcos import fcos
from vision_lab.heads.fpn import BackboneWithFPN, StrideAnchorGenerator
from vision_lab.heads.retinanet import retinanet
from vision_lab.heads.ssd import ssd
from vision_lab.heads.yolo import assign_targets, yolo
from vision_lab.models.backbone import ClassifierBackbone

TOLD = {"score_threshold": 0.001, "nms_threshold": 0.5, "detections_per_image": 50}

HEADS: dict[str, Callable[..., nn.Module]] = {
    "faster_rcnn": lambda *a, **k: faster_rcnn(
        *a,
        **{
            "channels": 64,
            "anchor_scale": 8,
            "rpn_post_nms_top_n": 1000,
            "box_batch_size_per_image": 512,
            **TOLD,
            **k,
        },
    ),
    "retinanet": lambda *a, **k: retinanet(
        *a, **{"channels": 64, "anchor_scale": 4, "norm": None, **TOLD, **k}
    ),
    "fcos": lambda *a, **k: fcos(*a, **{"channels": 64, **TOLD, **k}),
    "ssd": lambda *a, **k: ssd(*a, **{"channels": 64, **TOLD, **k}),
    "yolo": lambda *a, **k: yolo(*a, **{"channels": 32, "num_convs": 1, **TOLD, **k}),
}

PUBLISHED = {
    "faster_rcnn": (
        "resnet50",
        "fasterrcnn_resnet50_fpn",
        "box_score_thresh box_nms_thresh box_detections_per_img",
    ),
    "retinanet": (
        "resnet50",
        "retinanet_resnet50_fpn",
        "score_thresh nms_thresh detections_per_img",
    ),
    "fcos": ("resnet50", "fcos_resnet50_fpn", "score_thresh nms_thresh detections_per_img"),
    "ssd": ("vgg16", "ssd300_vgg16", "score_thresh nms_thresh detections_per_img"),
}


SLOW_TO_BUILD = ("faster_rcnn", "ssd")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW_TO_BUILD else n for n in PUBLISHED],
)
def test_keys_losses_and_detections_are_torchvisions(name: str):
    model, theirs, options = PUBLISHED[name]
    side = 300 if name == "ssd" else 192
    torch.manual_seed(0)
    telling = dict(zip(options.split(), TOLD.values(), strict=True))
    sizes = {} if name == "ssd" else {"min_size": side, "max_size": side}
    published = getattr(detection, theirs)(
        weights=None,
        weights_backbone=None,
        num_classes=6,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        **sizes,
        **telling,
    )
    backbone = ClassifierBackbone(
        getattr(torchvision.models, model)(weights=None), channels=3, loaded=None
    )
    made = HEADS[name](backbone, box_spec((side, side)), channels=256)
    state = published.state_dict()
    assert list(made.state_dict()) == list(state)
    made.load_state_dict(state)
    published.load_state_dict(made.state_dict())
    made.eval()
    published.eval()

    images = torch.rand(2, 3, side, side)
    targets = [box_targets([[20, 30, 90, 120], [100, 50, 180, 170]], [0, 4]), box_targets([], [])]
    with torch.no_grad():
        outputs = made(images)
        found, wanted = made.decode(outputs), published(list(images))
        torch.manual_seed(3)
        losses = made.losses(outputs, targets)
        for module in (
            published,
            getattr(published, "rpn", published),
            getattr(published, "roi_heads", published),
        ):
            module.training = True
        torch.manual_seed(3)
        theirs_too = published(
            list(images), [{"boxes": t.boxes, "labels": t.labels + 1} for t in targets]
        )
    assert losses.keys() == theirs_too.keys()
    assert all(torch.equal(losses[key], theirs_too[key]) for key in losses)
    assert sum(len(each["boxes"]) for each in wanted) > 50
    for ours, each in zip(found, wanted, strict=True):
        named = each["labels"] > 0  # torchvision's RetinaNet and FCOS may name the background
        assert torch.equal(ours.boxes, each["boxes"][named])
        assert torch.equal(ours.scores, each["scores"][named])
        assert torch.equal(ours.labels, each["labels"][named] - 1)


def made_of(
    name: str, make_backbone: Callable[..., ClassifierBackbone], size: tuple[int, int] = (96, 128)
) -> nn.Module:
    return HEADS[name](make_backbone("resnet18"), box_spec(size))


@pytest.mark.parametrize("name", HEADS)
def test_images_with_zero_one_and_many_objects_train(name: str, make_backbone):
    network = made_of(name, make_backbone).train()
    many = [[4 * k, 3 * k, 4 * k + 20, 3 * k + 30] for k in range(20)]
    targets = [
        box_targets([], []),
        box_targets([[10, 10, 60, 70]], [2]),
        box_targets(many, [k % 5 for k in range(20)]),
    ]
    losses = network.losses(network(torch.rand(3, 3, 96, 128)), targets)
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    torch.stack([*losses.values()]).sum().backward()
    gradients = {key: parameter.grad for key, parameter in network.named_parameters()}
    assert [
        key
        for key, gradient in gradients.items()
        if gradient is None or not gradient.isfinite().all()
    ] == []
    nothing = network.losses(network(torch.rand(2, 3, 96, 128)), [box_targets([], [])] * 2)
    assert all(loss.isfinite() for loss in nothing.values())


@pytest.mark.parametrize("name", HEADS)
def test_detections_are_boxes_in_the_image_sorted_by_score(name: str, make_backbone):
    network = made_of(name, make_backbone).eval()
    with torch.no_grad():
        found = network.decode(network(torch.rand(2, 3, 96, 128)))
    assert len(found) == 2
    for each in found:
        assert 0 < len(each) <= 50
        assert each.boxes.shape == (len(each), 4)
        assert (each.boxes >= 0).all()
        assert (each.boxes[:, 2] <= 128).all()
        assert (each.boxes[:, 3] <= 96).all()
        assert (each.scores.diff() <= 0).all()
        assert set(each.labels.tolist()) <= set(range(5))


@pytest.mark.parametrize("name", HEADS)
def test_crowds_are_ignored_in_training(name: str, make_backbone):
    network = made_of(name, make_backbone).eval()
    images, boxes = torch.rand(1, 3, 96, 128), [[10, 10, 60, 70], [40, 20, 120, 90]]
    with torch.no_grad():
        outputs = network(images)
        totals = []
        for crowd in ([False, True], [False, False]):
            torch.manual_seed(0)
            totals.append(
                sum(network.losses(outputs, [box_targets(boxes, [2, 1], crowd)]).values())
            )
        torch.manual_seed(0)
        alone = sum(network.losses(outputs, [box_targets(boxes[:1], [2])]).values())
    assert totals[0] != totals[1]
    if name == "yolo":  # where a crowd is, that something is there is no mistake either
        assert totals[0] < alone
    else:
        assert totals[0] == alone


@pytest.mark.parametrize("name", HEADS)
def test_losses_and_decode_restore_the_training_flag(name: str, make_backbone):
    network = made_of(name, make_backbone).eval()
    with torch.no_grad():
        outputs = network(torch.rand(1, 3, 96, 128))
        network.losses(outputs, [box_targets([[10, 10, 60, 70]], [2])])
        network.decode(outputs)
    assert not any(module.training for module in network.modules())


def test_a_model_with_a_smaller_stride_gives_its_coarsest_maps(make_backbone):
    backbone = make_backbone("resnet18")
    assert BackboneWithFPN(
        backbone, min_stride=8, out_channels=32, extra_blocks=None, extra_factors=[]
    ).strides == [
        8,
        16,
        32,
    ]
    assert BackboneWithFPN(
        backbone, min_stride=64, out_channels=32, extra_blocks=None, extra_factors=[2]
    ).strides == [
        16,
        32,
        64,
    ]
    backbone.stages = backbone.stages[:1]
    with pytest.raises(ConfigurationError, match="two feature maps, but this model has one"):
        BackboneWithFPN(
            backbone, min_stride=8, out_channels=32, extra_blocks=None, extra_factors=[]
        )


def test_group_norm_requires_divisible_channels(make_backbone):
    with pytest.raises(
        ArgumentError,
        match="norm=group: type null, or group with channels that are a multiple of 32",
    ):
        HEADS["retinanet"](make_backbone("resnet18"), box_spec((96, 96)), norm="group", channels=48)


def test_anchors_follow_the_stride_of_a_map_with_a_border():
    """Like those of AlexNet, whose first convolution has little padding."""
    anchors = StrideAnchorGenerator([[32], [64]], (1.0,), strides=[8, 16])
    from torchvision.models.detection.image_list import ImageList

    images = torch.zeros(1, 3, 96, 96)
    (whole,) = anchors(
        ImageList(images, [(96, 96)]), [torch.zeros(1, 1, 12, 12), torch.zeros(1, 1, 6, 6)]
    )
    assert whole[1].tolist() == [-8, -16, 24, 16]
    odd = torch.zeros(1, 3, 100, 100)  # stride 8 still, though 100 // 13 is 7
    (fine,) = anchors(
        ImageList(odd, [(100, 100)]), [torch.zeros(1, 1, 13, 13), torch.zeros(1, 1, 7, 7)]
    )
    assert fine[12].tolist() == [96 - 16, -16, 96 + 16, 16]
    (cut,) = anchors(
        ImageList(images, [(96, 96)]), [torch.zeros(1, 1, 11, 11), torch.zeros(1, 1, 5, 5)]
    )
    assert cut[1].tolist() == [-8, -16, 24, 16]
    assert cut[-1].tolist() == [64 - 32, 64 - 32, 64 + 32, 64 + 32]


def grid(stride: int, side: int) -> tuple[Tensor, Tensor]:
    places = (torch.arange(side // stride) + 0.5) * stride
    centers = torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=-1).flatten(0, 1)
    return centers, torch.full((len(centers),), float(stride))


def test_an_object_is_assigned_to_cells_around_its_center_on_the_map_of_its_size():
    parts = [grid(8, 64), grid(16, 64)]
    centers, strides = (
        torch.cat([part[0] for part in parts]),
        torch.cat([part[1] for part in parts]),
    )
    owners = assign_targets(
        torch.tensor([[16.0, 16.0, 48.0, 48.0], [0.0, 0.0, 64.0, 64.0]]), centers, strides
    )
    assert set(strides[owners == 0].tolist()) == {8.0}
    assert set(strides[owners == 1].tolist()) == {16.0}
    assert ((centers[owners == 0] - 32).abs() < 12).all()
    assert (
        owners == 0
    ).sum() == 4  # the two by two cells around the center, which lies on a corner
    small = assign_targets(torch.tensor([[20.5, 20.5, 21.5, 21.5]]), centers, strides)
    assert (small >= 0).sum() == 1  # no cell's center lies in it
    assert centers[small == 0].tolist() == [[20.0, 20.0]]


def test_cells_in_two_objects_are_assigned_to_the_smaller():
    centers, strides = grid(8, 64)
    owners = assign_targets(
        torch.tensor([[8.0, 8.0, 56.0, 56.0], [20.0, 20.0, 44.0, 44.0]]), centers, strides
    )
    assert (owners == 1).sum() == 4
    assert (owners == 0).sum() == 0


def test_a_perfect_yolo_detects_each_object_once(make_backbone):
    """Decoding outputs set by hand gives the same boxes."""
    network = made_of("yolo", make_backbone, (64, 64)).eval()
    with torch.no_grad():
        outputs = network(torch.rand(1, 3, 64, 64))
        wanted = torch.tensor([[10.0, 12.0, 40.0, 50.0], [44.0, 4.0, 60.0, 24.0]])
        owners = assign_targets(wanted, outputs.centers, outputs.strides)
        there = torch.where(owners >= 0, 9.0, -9.0)[None]
        classes = torch.full((1, len(owners), 5), -9.0)
        classes[0, owners == 0, 3] = classes[0, owners == 1, 1] = 9.0
        boxes = wanted[owners.clamp(min=0)][None]
        (found,) = network.decode(outputs._replace(objectness=there, classes=classes, boxes=boxes))
    assert found.labels[:2].sort().values.tolist() == [1, 3]
    assert torch.equal(found.boxes[:2][found.labels[:2].argsort(descending=True)], wanted)
    assert (found.scores[:2] > 0.99).all()
