"""JPEG files decoded at a reduced size: the rule, the pixels, and the targets on them."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from vision_lab.core.errors import UnreadableFile
from vision_lab.core.spec import DataSpec
from vision_lab.data.image_io import ImageFile
from vision_lab.data.reduction import Plan, ReductionPlanner, flatten_transforms
from vision_lab.data.transformed_dataset import TransformedDataset
from vision_lab.data.transforms import Mosaic, resize_center_crop, scale_jitter_crop

CROSS = (900, 700)
"""(x, y) of the center of a drawn cross in pixels."""

ARM = 60
"""Length of its arms in pixels."""


@cache
def photograph() -> np.ndarray[Any, Any]:
    """Return a photograph of 1280 x 960 pixels, upscaled, with grain."""
    with np.load("vision_lab/data/bundled/backgrounds.npz") as file:
        small = next(iter(file.values()))[0]
    large = Image.fromarray(small).resize((1280, 960), Image.Resampling.BICUBIC).convert("RGB")
    grain = np.random.default_rng(0).normal(0, 8, (960, 1280, 1))
    return (np.asarray(large) + grain).clip(0, 255).astype(np.uint8)


def save_cross(path: Path) -> Path:
    pixels = photograph() // 4
    x, y = CROSS
    pixels[y - 8 : y + 8, x - ARM : x + ARM] = 255
    pixels[y - ARM : y + ARM, x - 8 : x + 8] = 255
    Image.fromarray(pixels).save(path, quality=95)
    return path


def spec(target_type: Any, size: tuple[int, int]) -> DataSpec:
    return DataSpec(
        target_type=target_type,
        class_names=("background", "cross"),
        num_classes=2,
        image_size=size,
        channels=3,
        mean=(0.5,),
        std=(0.25,),
    )


def read(
    path: Path, target: Any, data_spec: DataSpec, transforms: list[Any], *, epoch: int = 0
) -> tuple[Tensor, Any]:
    dataset = TransformedDataset(
        [(path, target)],  # type: ignore[arg-type]
        spec=data_spec,
        transforms=transforms,
        seed=0,
        label_map=None,
        max_pixels=10**8,
    )
    item = dataset[epoch, 0]
    assert not isinstance(item, UnreadableFile), item
    return item[0], item[1]


def plan(
    transforms: list[Any],
    size: tuple[int, int],
    *,
    image_size: tuple[int, int] = (100, 100),
    **changes: Any,
) -> Plan:
    settings: dict[str, Any] = {"letterbox": False, "keep_pixels": False, **changes}
    planner = ReductionPlanner(flatten_transforms(transforms), image_size=image_size, **settings)
    return planner.plan(size)


@pytest.mark.parametrize(
    ("transforms", "size", "expected"),
    [
        ([], (1200, 1200), 8),
        ([], (1199, 1199), 4),
        ([], (600, 4000), 4),
        ([], (299, 299), 1),
        ([v2.RandomHorizontalFlip(), v2.ColorJitter(0.1)], (1200, 1200), 8),
        ([Mosaic(size=(100, 100), p=1.0), v2.RandomRotation(9)], (1200, 1200), 8),
        ([resize_center_crop(size=(100, 100), fraction=1.0)], (1200, 4000), 8),
        ([resize_center_crop(size=(100, 100), fraction=0.5)], (1200, 4000), 4),
        ([v2.Resize((50, 100))], (600, 1200), 8),
        ([v2.RandomCrop(100)], (4000, 4000), 1),
        ([v2.RandomRotation(9)], (4000, 4000), 1),
        ([torch.nn.Identity()], (4000, 4000), 1),
        ([v2.RandomApply([v2.RandomResizedCrop(100)])], (4000, 4000), 1),
    ],
)
def test_images_are_reduced_as_far_as_their_transforms_allow(
    transforms: list[Any], size: tuple[int, int], expected: int
):
    assert plan(transforms, size).reduction == expected


def test_targets_with_pixels_need_a_common_divisor():
    assert plan([], (1204, 1600), keep_pixels=True).reduction == 4
    assert plan([], (1205, 1600), keep_pixels=True).reduction == 1
    assert plan([], (1205, 1600), keep_pixels=False).reduction == 8


def test_letterboxes_need_the_smaller_scale():
    assert plan([], (600, 1200), letterbox=True, keep_pixels=True).reduction == 8
    assert plan([], (600, 1200), letterbox=False, keep_pixels=True).reduction == 4


def test_crops_are_aligned_and_large_enough():
    reductions = set()
    for seed in range(200):
        torch.manual_seed(seed)
        reduction, crop = plan([v2.RandomResizedCrop(50)], (1001, 1203))
        assert crop is not None
        reductions.add(reduction)
        assert all(value % reduction == 0 for value in crop.values())
        assert min(crop["height"], crop["width"]) >= 1.5 * 50 * reduction - reduction / 2
        assert crop["top"] + crop["height"] <= 1001
        assert crop["left"] + crop["width"] <= 1203
    assert reductions == {2, 4, 8}


def test_an_image_that_is_not_reduced_is_cropped_as_by_torchvision(tmp_path: Path):
    Image.fromarray(photograph()[:150, :200]).save(tmp_path / "a.jpg")
    crop = v2.RandomResizedCrop(64, antialias=True)
    image, _ = read(tmp_path / "a.jpg", 1, spec("labels", (64, 64)), [crop])
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png")
    expected, _ = read(tmp_path / "a.png", 1, spec("labels", (64, 64)), [crop])
    assert torch.equal(image, expected)


@pytest.mark.parametrize("size", [64, 150, 300])
def test_reduced_photographs_differ_by_less_than_two_gray_levels(tmp_path: Path, size: int):
    pixels = photograph()
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=92)
    for transforms in (
        [],
        [resize_center_crop(size=(size, size))],
        [v2.RandomResizedCrop(size, scale=(0.5, 1), antialias=True)],
    ):
        image, _ = read(tmp_path / "a.jpg", 1, spec("labels", (size, size)), transforms)
        whole = ImageFile.open(tmp_path / "a.jpg").decode(channels=3)
        Image.fromarray(whole.permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
        if transforms and isinstance(transforms[0], v2.RandomResizedCrop):
            expected = _crop_as_planned(whole, transforms[0], size)
        else:
            expected, _ = read(tmp_path / "a.png", 1, spec("labels", (size, size)), transforms)
        assert (image.float() - expected.float()).abs().mean() < 2


def _crop_as_planned(whole: Tensor, transform: Any, size: int) -> Tensor:
    """Crop a whole image where the sample (epoch 0, index 0) is cropped."""
    from vision_lab.training.seeding import seed_all

    seed_all(0, 0, 0)
    crop = plan([transform], (960, 1280), image_size=(size, size)).parameters
    assert crop is not None
    return transform.transform(tv_tensors.Image(whole), crop)


@pytest.mark.parametrize("side", [96, 256, 480])
@pytest.mark.parametrize("name", ["whole", "flip", "crop", "jitter", "center"])
def test_a_cross_stays_under_its_mask_and_its_box(tmp_path: Path, name: str, side: int):
    path = save_cross(tmp_path / "a.jpg")
    transforms: dict[str, list[Any]] = {
        "whole": [],
        "flip": [v2.RandomHorizontalFlip(1.0)],
        "crop": [v2.RandomResizedCrop(side, scale=(0.6, 1.0), antialias=True)],
        "jitter": [scale_jitter_crop(size=(side, side))],
        "center": [resize_center_crop(size=(side, side))],
    }
    x, y = CROSS
    mask = np.zeros((960, 1280), dtype=np.uint8)
    mask[y - 8 : y + 8, x - ARM : x + ARM] = mask[y - ARM : y + ARM, x - 8 : x + 8] = 1
    for epoch in range(3):
        image, labels = read(path, mask, spec("masks", (side, side)), transforms[name], epoch=epoch)
        drawn = (image.float().mean(dim=0) - 64).clamp(min=0)  # the background is darker
        labeled = labels.eq(1).float()
        is_cut = any(
            edge.any() for edge in (labeled[0], labeled[-1], labeled[:, 0], labeled[:, -1])
        )
        if is_cut or not labeled.any():
            continue
        # Nearest-neighbor resizing moves a mask by up to half a pixel by itself.
        assert (_center(drawn) - _center(labeled)).abs().max() < 1
    if name in ("jitter", "center"):  # these crop boxes, too
        return
    box = {"boxes": [[x - ARM, y - ARM, x + ARM, y + ARM]], "labels": [1]}
    image, objects = read(path, box, spec("boxes", (side, side)), transforms[name])
    rows, columns = (image.float().mean(dim=0) > 128).nonzero(as_tuple=True)
    drawn = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert (objects.boxes[0] - drawn).abs().max() <= 1.01


def _center(weights: Tensor) -> Tensor:
    """Return the center of mass (row, column) of non-negative weights, (H, W)."""
    rows, columns = (torch.arange(length).float() for length in weights.shape)
    return torch.stack([(weights.sum(1) * rows).sum(), (weights.sum(0) * columns).sum()]) / (
        weights.sum()
    )


def test_equal_settings_give_equal_images(tmp_path: Path):
    Image.fromarray(photograph()).save(tmp_path / "a.jpg")
    crop = [v2.RandomResizedCrop(64, antialias=True), v2.RandomHorizontalFlip()]
    images = []
    for epoch in (0, 1, 0):
        images.append(read(tmp_path / "a.jpg", 1, spec("labels", (64, 64)), crop, epoch=epoch)[0])
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[1])


def test_the_size_of_the_original_is_kept(tmp_path: Path):
    Image.fromarray(photograph()).save(tmp_path / "a.jpg")
    dataset = TransformedDataset(
        [(tmp_path / "a.jpg", None)],  # type: ignore[arg-type]
        spec=spec("boxes", (64, 64)),
        transforms=[],
        seed=0,
        label_map=None,
        max_pixels=10**8,
    )
    item = dataset[0, 0]
    assert not isinstance(item, UnreadableFile)
    assert item[2].size == (960, 1280)
    assert item[2].content_size == (48, 64)
    sizes = []
    for planner in (None, dataset.planner):
        sample = dataset.read(0, planner=planner)
        assert not isinstance(sample, UnreadableFile)
        sizes.append(tuple(sample.image.shape))
    assert sizes == [(3, 960, 1280), (3, 120, 160)]
