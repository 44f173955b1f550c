"""The data module: splits, batches, unreadable files, any number of workers."""

import multiprocessing
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.transforms import v2

from tests.builders import classification_task, make_source
from vision_lab.core.errors import ConfigurationError, DataError, UnreadableFileError
from vision_lab.core.spec import IGNORE_INDEX, DataSpec
from vision_lab.data.formats.image_folder import UnlabeledImages, class_names, image_folder
from vision_lab.data.image_io import InvalidImageError
from vision_lab.data.module import DataModule, PredictionData, get_labels
from vision_lab.data.targets import LabelTarget
from vision_lab.data.transforms import scale_jitter_crop


class Tensors(TensorDataset):
    """40 color images; four classes of 4, 8, 12 and 16."""

    def __init__(self, shift: int = 0) -> None:
        labels = torch.tensor([label for label in range(4) for _ in range(4 * (label + 1))])
        images = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
        self.targets = labels + shift
        super().__init__(images, self.targets)


def module(
    spec: DataSpec, *, train=Tensors, val=None, test=None, source=None, **changes
) -> DataModule:
    arguments = {
        "spec": spec,
        "source": source or make_source(train=train, val=val, test=test),
        "transforms": {"train": [], "eval": []},
        "batch_size": 4,
        "num_workers": 0,
        "on_error": "raise",
        "seed": 0,
    }
    made = DataModule(**(arguments | changes))
    made.setup()
    return made


def prediction(spec: DataSpec, dataset, **changes) -> PredictionData:
    arguments = {
        "spec": spec,
        "transforms": {"train": [], "eval": []},
        "batch_size": 4,
        "num_workers": 0,
        "on_error": "raise",
        "seed": 0,
    }
    made = PredictionData(dataset, **(arguments | changes))
    made.prepare_data()
    made.setup("predict")
    return made


def folder_module(spec: DataSpec, root: Path, **changes) -> DataModule:
    names = class_names(str(root))
    return module(spec, source=partial(image_folder, str(root), class_folders=names), **changes)


def seen(loader) -> list[int]:
    return [sample.index for batch in loader for sample in batch.samples]


def test_missing_splits_are_stratified_parts_of_train(spec: DataSpec):
    made = module(spec, holdout_fraction=0.25)
    counts = {
        split: torch.bincount(torch.tensor(get_labels(data))).tolist()
        for split, data in made.splits.items()
    }
    assert counts["test"] == [1, 2, 3, 4]
    assert sum(counts["val"]) == 10
    assert all(
        abs(count - share) <= 1 for count, share in zip(counts["val"], (1, 2, 3, 4), strict=True)
    )
    assert [sum(each) for each in zip(*counts.values(), strict=True)] == [4, 8, 12, 16]
    again, other = module(spec, holdout_fraction=0.25), module(spec, holdout_fraction=0.25, seed=1)
    assert again.splits["val"].indices == made.splits["val"].indices
    assert other.splits["val"].indices != made.splits["val"].indices
    seeds = [module(spec, holdout_fraction=0.25, seed=seed, split_seed=7) for seed in (0, 1)]
    assert seeds[0].splits["val"].indices == seeds[1].splits["val"].indices
    assert seeds[0].splits["val"].indices != made.splits["val"].indices
    assert not set(made.splits["val"].indices) & set(made.splits["test"].indices)


def test_a_batch(spec: DataSpec):
    batch = next(iter(module(spec).train_dataloader()))
    assert batch.images.shape == (4, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.targets.dtype == torch.int64
    assert [sample.size for sample in batch.samples] == [(8, 8)] * 4
    assert module(spec).on_after_batch_transfer(batch, 0) is batch


def test_channels_follow_the_spec(spec: DataSpec):
    gray = module(replace(spec, channels=1))
    assert next(iter(gray.val_dataloader())).images.shape == (4, 1, 32, 32)


def test_per_class(spec: DataSpec):
    made = module(spec, samples_per_class=2)
    assert torch.bincount(torch.tensor(get_labels(made.splits["train"]))).tolist() == [2, 2, 2, 2]
    assert len(made.splits["val"]) == 4


def test_any_number_of_workers_gives_the_same_batches(
    spec: DataSpec, make_folder: Callable[..., Path]
):
    root = make_folder(classes=spec.class_names)
    transforms = {
        "train": [v2.RandomResizedCrop(32), v2.RandomHorizontalFlip(), v2.ColorJitter(0.3)],
        "eval": [],
    }
    batches = []
    for workers in (0, 1, 3):
        loader = folder_module(
            spec, root, num_workers=workers, transforms=transforms
        ).train_dataloader()
        loader.batch_sampler.set_epoch(2)
        batches.append(list(loader))
    for others in batches[1:]:
        assert len(others) == len(batches[0]) > 5
        for one, other in zip(batches[0], others, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.targets, other.targets)
            assert list(one.samples) == list(other.samples)


def test_augmentation_differs_between_epochs_and_samples(spec: DataSpec):
    dataset = (
        module(spec, transforms={"train": [v2.RandomErasing(p=1)], "eval": []})
        .train_dataloader()
        .dataset
    )
    first = dataset[(0, 3)][0]
    assert torch.equal(dataset[(0, 3)][0], first)
    assert not torch.equal(dataset[(1, 3)][0], first)


def test_an_unreadable_file_stops_the_run(spec: DataSpec, make_folder: Callable[..., Path]):
    root = make_folder(classes=spec.class_names)
    (root / "ash" / "000.png").write_bytes(b"")
    made = folder_module(spec, root)
    batches = [batch for split in ("train", "val", "test") for batch in made.eval_loader(split)]
    (bad,) = [batch for batch in batches if batch.unreadable]
    with pytest.raises(DataError) as caught:
        made.on_after_batch_transfer(bad, 0)
    assert str(caught.value) == (
        f"1 image cannot be read:\n  {root / 'ash' / '000.png'}: the file is empty\n"
        "Fix or remove them, or type data.on_error=skip to skip such files and list them."
    )


def test_unreadable_files_are_skipped_counted_and_listed(
    spec: DataSpec, make_folder: Callable[..., Path]
):
    root = make_folder(classes=spec.class_names)
    (root / "ash" / "000.png").write_bytes(b"")
    (root / "date" / "003.png").write_text("is not an image")
    made = folder_module(spec, root, on_error="skip")
    counted = 0
    for split in ("train", "val", "test"):
        for batch in made.eval_loader(split):
            ready = made.on_after_batch_transfer(batch, 0)
            assert len(ready.images) == len(ready.targets) == len(ready.samples)
            counted += len(ready.samples)
    assert counted == 48 - 2
    assert made.unreadable == {
        str(root / "ash" / "000.png"): "the file is empty",
        str(root / "date" / "003.png"): "it is not an image, or has an unsupported format",
    }


def test_a_batch_of_unreadable_files_is_empty(spec: DataSpec, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"")
    made = prediction(spec, UnlabeledImages([tmp_path / "a.png"]), on_error="skip")
    batch = made.on_after_batch_transfer(next(iter(made.predict_dataloader())), 0)
    assert len(batch.samples) == len(batch.images) == len(batch.targets) == 0
    assert made.unreadable == {str(tmp_path / "a.png"): "the file is empty"}


class FailingValidation(pl.Callback):
    """Raises an error in validation."""

    def on_validation_batch_start(self, *_: object) -> None:
        raise OSError("the disk is gone")


def test_workers_end_when_validation_fails(spec: DataSpec):
    """Lightning ends those of validation only."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, spec.num_classes))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        num_sanity_val_steps=0,
        callbacks=[FailingValidation()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    before = multiprocessing.active_children()
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.fit(classification_task(spec, network=network), module(spec, num_workers=1))
    assert multiprocessing.active_children() == before


@pytest.mark.slow
def test_workers_end_with_a_script_that_still_uses_them():
    """Python waits for them after a SIGTERM, which they ignore."""
    script = """
        from vision_lab import build
        from vision_lab.api.commands import compose

        config = compose("trainer=cpu", "data.num_workers=1")
        data = build.data(config, build.spec(config))
        data.setup("fit")
        batches = iter(data.train_dataloader())
        print(len(next(batches).samples))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stdout) == (0, "64\n"), result.stderr


def test_images_stay_uint8_until_they_are_on_the_device(spec: DataSpec):
    made = module(spec, transforms={"train": [], "eval": [v2.ToDtype(torch.float32, scale=True)]})
    with pytest.raises(
        ConfigurationError, match=r"a transform in augment converts images to torch\.float32"
    ):
        made.on_after_batch_transfer(next(iter(made.val_dataloader())), 0)


def test_labels_outside_of_the_spec_are_refused(spec: DataSpec):
    with pytest.raises(
        DataError, match=r"labels range from 1 to 4, but data\.spec\.class_names has 4 names"
    ):
        module(spec, train=lambda: Tensors(shift=1))


def test_labels_are_mapped(spec: DataSpec):
    batch = next(iter(module(spec, label_map=[3, 2, 1, 0]).val_dataloader()))
    plain = next(iter(module(spec).val_dataloader()))
    assert torch.equal(batch.targets, 3 - plain.targets)


def test_class_weights_are_one_on_average(spec: DataSpec):
    made = module(spec)
    weights, labels = made.class_weights(), torch.tensor(get_labels(made.splits["train"]))
    assert weights[labels].mean().item() == pytest.approx(1)
    counts = torch.bincount(labels)
    assert torch.allclose(weights * counts, (weights * counts)[0].expand(4))


def test_images_without_objects(spec: DataSpec, make_folder: Callable[..., Path]):
    root = make_folder()
    images = UnlabeledImages(sorted(root.rglob("*.png"))[:3])
    made = prediction(spec, images, batch_size=2)
    batches = list(made.predict_dataloader())
    assert [len(batch.samples) for batch in batches] == [2, 1]
    assert batches[0].targets.tolist() == [-1, -1]
    assert batches[0].samples[0].path == str(root / "ash" / "000.png")


@pytest.fixture
def mask_spec(spec: DataSpec) -> DataSpec:
    return replace(spec, target_type="masks")


class Drawn:
    """Images of 12x10 pixels with masks of their white pixels."""

    def __init__(self, count: int = 20) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        mask = np.zeros((12, 10), dtype=np.uint8)
        mask[index % 6 :, : 1 + index % 9] = 1
        return np.repeat(mask[..., None] * 255, 3, axis=2), mask


def test_masks_are_transformed_with_their_images(mask_spec: DataSpec):
    transforms = [
        v2.RandomHorizontalFlip(),
        v2.RandomRotation(40),
        scale_jitter_crop(size=(32, 32)),
    ]
    made = module(
        mask_spec, train=Drawn, transforms={"train": transforms, "eval": []}, batch_size=16
    )
    batch = next(iter(made.train_dataloader()))
    assert (batch.images.shape, batch.targets.shape) == ((16, 3, 32, 32), (16, 32, 32))
    assert batch.targets.dtype == torch.uint8
    assert type(batch.targets) is type(batch.images) is torch.Tensor
    sure = (batch.images[:, 0] > 250) | (batch.images[:, 0] < 5)  # not blurred by resizing
    counted = sure & (batch.targets != IGNORE_INDEX)
    agree = (batch.images[:, 0] > 128) == (batch.targets == 1)
    assert agree[counted].float().mean() > 0.97
    assert (batch.targets == IGNORE_INDEX).any()  # what lies beyond the image
    assert set(batch.targets.unique().tolist()) == {0, 1, IGNORE_INDEX}
    plain = next(iter(made.val_dataloader()))
    assert set(plain.targets.unique().tolist()) <= {0, 1}


def test_splits_of_masks_are_held_out_at_random(mask_spec: DataSpec):
    made = module(mask_spec, train=Drawn, holdout_fraction=0.2)
    assert {split: len(data) for split, data in made.splits.items()} == {
        "train": 12,
        "val": 4,
        "test": 4,
    }
    held = [index for split in ("train", "val", "test") for index in made.splits[split].indices]
    assert sorted(held) == list(range(20))
    assert (
        made.splits["val"].indices
        != module(mask_spec, train=Drawn, holdout_fraction=0.2, seed=1).splits["val"].indices
    )
    assert set(made.fingerprints()["train"]) == {"count", "indices"}
    with pytest.raises(
        ConfigurationError,
        match=r"data\.samples_per_class=3 requires labels, which this data does not have: type null",
    ):
        module(mask_spec, train=Drawn, samples_per_class=3)


class Wrong(Drawn):
    """Masks of other sizes and with other labels."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = super().__getitem__(index)
        if index == 3:
            return image, mask.T
        if index == 4:
            return image, mask + 7
        if index == 5:
            raise UnreadableFileError("masks/5.png", "the file is empty")
        return image, mask


def test_masks_of_another_size_are_named(mask_spec: DataSpec):
    made = prediction(mask_spec, Wrong(), on_error="skip", batch_size=6)
    batches = [made.on_after_batch_transfer(batch, 0) for batch in made.predict_dataloader()]
    assert sum(len(batch.samples) for batch in batches) == 17
    assert made.unreadable == {
        "sample 3": "its mask has 12 x 10 pixels, the image 10 x 12; is one of them rotated by its EXIF tag?",
        "sample 4": "its mask contains 7, 8, but data.spec.class_names has 4 names (0 to 3; 255 is ignored)",
        "masks/5.png": "the file is empty",
    }


def test_masks_of_a_single_class_are_reported(
    mask_spec: DataSpec, caplog: pytest.LogCaptureFixture
):
    class Forgotten(Drawn):
        """255 in place of a class."""

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            image, mask = super().__getitem__(index)
            return image, mask * 255

    module(mask_spec, train=Forgotten)
    assert "the training masks contain no class but ash, and " in caplog.text
    assert (
        "if the ignored value (255) stands for a class, type data.class_values=[0,255]"
        in caplog.text
    )
    caplog.clear()
    module(mask_spec, train=Drawn)
    assert caplog.text == ""


def test_too_few_images(mask_spec: DataSpec):
    with pytest.raises(
        DataError, match=r"2 images cannot be split into train, val and test: provide at least 3"
    ):
        module(mask_spec, train=partial(Drawn, 2))


def test_predicted_masks_are_mapped_to_other_classes(mask_spec: DataSpec):
    plain = next(iter(module(mask_spec, train=Drawn).val_dataloader())).targets
    other = next(iter(module(mask_spec, train=Drawn, label_map=[2, 0]).val_dataloader())).targets
    assert torch.equal(other, torch.where(plain == 0, 2, 0).to(torch.uint8))


def test_class_weights_of_masks_are_median_frequencies(mask_spec: DataSpec):
    class Two:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            mask = torch.zeros(8, 8, dtype=torch.uint8)
            mask[:2] = 1 - index  # a quarter of the first image alone
            mask[4:, :4] = IGNORE_INDEX
            return torch.zeros(3, 8, 8, dtype=torch.uint8), mask

    small = replace(mask_spec, image_size=(8, 8))
    weights = module(small, train=Two, val=Two, test=Two).class_weights()
    sky, sea = (32 + 48) / 96, 16 / 48
    median = (sky + sea) / 2
    assert weights.tolist() == pytest.approx([median / sky, median / sea, 0.0, 0.0])


def test_images_of_original_size_are_not_resized(mask_spec: DataSpec):
    made = prediction(mask_spec, Drawn(3), keep_size=True)
    batches = list(made.predict_dataloader())
    assert [tuple(batch.images.shape) for batch in batches] == [(1, 3, 12, 10)] * 3


def test_images_without_annotations_have_ignored_masks(mask_spec: DataSpec, make_folder):
    made = prediction(mask_spec, UnlabeledImages(sorted(make_folder().rglob("*.png"))[:2]))
    (batch,) = made.predict_dataloader()
    assert batch.targets.shape == (2, 32, 32)
    assert (batch.targets == IGNORE_INDEX).all()


@pytest.mark.parametrize(
    ("side", "typed", "expected"),
    [(8, "auto", 10), (224, "auto", 4), (900, "auto", 1), (8, 3, 3), (224, 30, 30)],
)
def test_evaluation_has_batches_of_its_own(spec: DataSpec, side: int, typed: object, expected: int):
    made = module(replace(spec, image_size=(side, side)), batch_size=10, eval_batch_size=typed)
    assert made.effective_eval_batch_size == expected
    if side == 8:
        sizes = {len(batch.samples) for batch in made.eval_loader("train")}
        assert max(sizes) <= expected < max(sizes) + 3  # all batches have about the same size
    assert made.train_dataloader().batch_sampler.batch_size == 10


def test_a_subset_of_a_split_is_evenly_spaced(spec: DataSpec):
    """``eval_loader`` and ``load_images``."""
    made = module(spec)
    whole = torch.cat([batch.images for batch in made.eval_loader("train")])
    part = torch.cat([batch.images for batch in made.eval_loader("train", max_samples=5)])
    places = [place * len(whole) // 5 for place in range(5)]
    assert torch.equal(part, whole[places])
    assert torch.equal(torch.stack(made.load_images("train", [4, 0], max_samples=5)), part[[4, 0]])
    assert torch.equal(made.load_images("train", [3])[0], whole[3])
    assert sum(
        len(batch.samples) for batch in made.eval_loader("train", max_samples=10_000)
    ) == len(whole)


@pytest.mark.parametrize(("limit", "batches"), [(2, 2), (0.5, 5), (1.0, 10)])
def test_a_limited_validation_covers_all_classes(spec: DataSpec, limit: float, batches: int):
    made = module(spec, val=Tensors)
    made.trainer = pl.Trainer(
        limit_val_batches=limit, accelerator="cpu", devices=1, logger=False, barebones=False
    )
    loader = made.val_dataloader()
    assert len(loader) == 10
    first = [
        index
        for batch in list(loader)[:batches]
        for index in [sample.index for sample in batch.samples]
    ]
    assert first == [place * 40 // (4 * batches) for place in range(4 * batches)]
    assert {int(Tensors().targets[index]) for index in first} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("targets", "text"),
    [
        (torch.tensor([0.0, 0.98, 1.0]), "sample 1 has 0.98"),
        (torch.tensor([0.0, float("nan"), 1.0]), "sample 1 has nan"),
        (["ash", "oak"], "labels must be integers from 0, one for each sample: "),
        (torch.eye(3), "the label of a sample has shape [3]"),
    ],
)
def test_labels_that_are_not_integers_are_refused(spec: DataSpec, targets: object, text: str):
    class Odd(Tensors):
        def __init__(self) -> None:
            super().__init__()
            self.targets = targets

    with pytest.raises(DataError, match=re.escape(text)):
        module(spec, train=Odd)
    whole = module(spec, train=Tensors, val=lambda: Floats())
    assert get_labels(whole.splits["val"])[:5] == [0, 0, 0, 0, 1]


class Floats(Tensors):
    """Integers stored as floats."""

    def __init__(self) -> None:
        super().__init__()
        self.targets = self.targets.double()


def test_a_label_that_is_not_an_integer_is_an_invalid_sample(spec: DataSpec):
    label = LabelTarget((8, 8), None)
    image = torch.zeros(3, 8, 8)
    assert label(np.float64(2.0), image) == 2
    with pytest.raises(InvalidImageError, match=r"its label 0\.98 is not an integer"):
        label(0.98, image)
