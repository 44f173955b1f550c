"""The one DataModule: splits, batches, bad files, and numbers that no number of workers changes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset
from torchvision.transforms import v2

from vision_lab.data.folder import Unlabelled, class_names, pictures
from vision_lab.data.module import DataModule, labels_of
from vision_lab.types import ConfigurationError, DataError, DataSpec


class Tensors(TensorDataset):
    """40 colour pictures; four classes of 4, 8, 12 and 16."""

    def __init__(self, shift: int = 0) -> None:
        labels = torch.tensor([label for label in range(4) for _ in range(4 * (label + 1))])
        images = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
        self.targets = labels + shift
        super().__init__(images, self.targets)


def module(spec: DataSpec, **changes) -> DataModule:
    arguments = {
        "spec": spec,
        "train": Tensors,
        "transforms": {"train": [], "eval": []},
        "batch_size": 4,
        "num_workers": 0,
        "on_bad": "stop",
        "seed": 0,
    }
    made = DataModule(**(arguments | changes))
    made.setup()
    return made


def folder_module(spec: DataSpec, root: Path, **changes) -> DataModule:
    names = class_names(str(root))
    sources = {split: partial(pictures, str(root), split=split, folders=names) for split in ("train", "val", "test")}
    return module(spec, **(sources | changes))


def seen(loader) -> list[int]:
    return [sample.index for batch in loader for sample in batch.samples]


def test_missing_splits_are_stratified_parts_of_train(spec: DataSpec):
    made = module(spec, holdout=0.25)
    counts = {split: torch.bincount(torch.tensor(labels_of(data))).tolist() for split, data in made.splits.items()}
    assert counts["test"] == [1, 2, 3, 4]
    assert sum(counts["val"]) == 10
    assert all(abs(count - share) <= 1 for count, share in zip(counts["val"], (1, 2, 3, 4), strict=True))
    assert [sum(each) for each in zip(*counts.values(), strict=True)] == [4, 8, 12, 16]
    again, other = module(spec, holdout=0.25), module(spec, holdout=0.25, seed=1)
    assert again.splits["val"].indices == made.splits["val"].indices
    assert other.splits["val"].indices != made.splits["val"].indices
    assert not set(made.splits["val"].indices) & set(made.splits["test"].indices)


def test_a_batch(spec: DataSpec):
    batch = next(iter(module(spec).train_dataloader()))
    assert batch.images.shape == (4, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.targets.dtype == torch.int64
    assert [sample.size for sample in batch.samples] == [(8, 8)] * 4
    assert module(spec).on_after_batch_transfer(batch, 0) is batch


def test_channels_follow_the_spec(spec: DataSpec):
    from dataclasses import replace

    grey = module(replace(spec, channels=1))
    assert next(iter(grey.val_dataloader())).images.shape == (4, 1, 32, 32)


def test_per_class(spec: DataSpec):
    made = module(spec, per_class=2)
    assert torch.bincount(torch.tensor(labels_of(made.splits["train"]))).tolist() == [2, 2, 2, 2]
    assert len(made.splits["val"]) == 4


def test_any_number_of_workers_gives_the_same_batches(spec: DataSpec, make_folder: Callable[..., Path]):
    root = make_folder(classes=spec.class_names)
    transforms = {"train": [v2.RandomResizedCrop(32), v2.RandomHorizontalFlip(), v2.ColorJitter(0.3)], "eval": []}
    batches = []
    for workers in (0, 1, 3):
        loader = folder_module(spec, root, num_workers=workers, transforms=transforms).train_dataloader()
        loader.batch_sampler.set_epoch(2)
        batches.append(list(loader))
    for others in batches[1:]:
        assert len(others) == len(batches[0]) > 5
        for one, other in zip(batches[0], others, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.targets, other.targets)
            assert list(one.samples) == list(other.samples)


def test_augmentation_differs_between_epochs_and_samples(spec: DataSpec):
    dataset = module(spec, transforms={"train": [v2.RandomErasing(p=1)], "eval": []}).train_dataloader().dataset
    first = dataset[(0, 3)][0]
    assert torch.equal(dataset[(0, 3)][0], first)
    assert not torch.equal(dataset[(1, 3)][0], first)


def test_a_bad_file_stops_the_run_by_name(spec: DataSpec, make_folder: Callable[..., Path]):
    root = make_folder(classes=spec.class_names)
    (root / "ash" / "000.png").write_bytes(b"")
    made = folder_module(spec, root)
    batches = [batch for split in ("train", "val", "test") for batch in made.eval_loader(split)]
    (bad,) = [batch for batch in batches if batch.unreadable]
    with pytest.raises(DataError) as caught:
        made.on_after_batch_transfer(bad, 0)
    assert str(caught.value) == (
        f"1 picture cannot be read:\n  {root / 'ash' / '000.png'}: the file is empty\n"
        "Mend or remove them, or type data.on_bad=skip to leave such files out, counted and listed."
    )


def test_bad_files_are_skipped_counted_and_listed(spec: DataSpec, make_folder: Callable[..., Path]):
    root = make_folder(classes=spec.class_names)
    (root / "ash" / "000.png").write_bytes(b"")
    (root / "date" / "003.png").write_text("no picture")
    made = folder_module(spec, root, on_bad="skip")
    counted = 0
    for split in ("train", "val", "test"):
        for batch in made.eval_loader(split):
            ready = made.on_after_batch_transfer(batch, 0)
            assert len(ready.images) == len(ready.targets) == len(ready.samples)
            counted += len(ready.samples)
    assert counted == 48 - 2
    assert made.unreadable == {
        str(root / "ash" / "000.png"): "the file is empty",
        str(root / "date" / "003.png"): "it is no picture, or of a kind that cannot be read",
    }


def test_a_batch_of_bad_files_alone_is_empty(spec: DataSpec, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"")
    made = module(spec, on_bad="skip")
    made.look_at(Unlabelled([tmp_path / "a.png"]))
    batch = made.on_after_batch_transfer(next(iter(made.predict_dataloader())), 0)
    assert len(batch.samples) == len(batch.images) == len(batch.targets) == 0
    assert made.unreadable == {str(tmp_path / "a.png"): "the file is empty"}


def test_pictures_stay_bytes_until_they_are_on_the_device(spec: DataSpec):
    made = module(spec, transforms={"train": [], "eval": [v2.ToDtype(torch.float32, scale=True)]})
    with pytest.raises(ConfigurationError, match=r"a transform of augment makes torch\.float32 of pictures"):
        made.on_after_batch_transfer(next(iter(made.val_dataloader())), 0)


def test_labels_beyond_the_spec(spec: DataSpec):
    with pytest.raises(DataError, match=r"labels reach from 1 to 4, but data\.spec\.class_names has 4 names"):
        module(spec, train=lambda: Tensors(shift=1))


def test_relabelled(spec: DataSpec):
    batch = next(iter(module(spec, relabel=[3, 2, 1, 0]).val_dataloader()))
    plain = next(iter(module(spec).val_dataloader()))
    assert torch.equal(batch.targets, 3 - plain.targets)


def test_class_weights_are_one_on_average(spec: DataSpec):
    made = module(spec)
    weights, labels = made.class_weights(), torch.tensor(labels_of(made.splits["train"]))
    assert weights[labels].mean().item() == pytest.approx(1)
    counts = torch.bincount(labels)
    assert torch.allclose(weights * counts, (weights * counts)[0].expand(4))


def test_all_that_is_wrong_comes_at_once(spec: DataSpec):
    with pytest.raises(ConfigurationError) as caught:
        module(spec, batch_size=0, num_workers=-1, on_bad="ignore", holdout=0.9, per_class=0)
    assert [line.split("=")[0] for line in str(caught.value).splitlines()] == [
        "data.batch_size",
        "data.num_workers",
        "data.on_bad",
        "data.holdout",
        "data.per_class",
    ]


def test_unlabelled_pictures(spec: DataSpec, make_folder: Callable[..., Path]):
    root = make_folder()
    made = DataModule(
        spec=spec,
        train=None,
        transforms={"train": [], "eval": []},
        batch_size=2,
        num_workers=0,
        on_bad="stop",
        seed=0,
    )
    made.look_at(Unlabelled(sorted(root.rglob("*.png"))[:3]))
    made.prepare_data()
    made.setup("predict")
    batches = list(made.predict_dataloader())
    assert [len(batch.samples) for batch in batches] == [2, 1]
    assert batches[0].targets.tolist() == [-1, -1]
    assert batches[0].samples[0].path == str(root / "ash" / "000.png")
