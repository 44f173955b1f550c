"""The one DataModule: three map-style data sets of (picture, target), made into batches in a known order."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision import tv_tensors
from torchvision.transforms import v2

from vision_lab import interruption
from vision_lab.data.fingerprint import fingerprint, labels_of
from vision_lab.data.order import Order
from vision_lab.data.reading import MAX_PIXELS, UnreadablePictureError, as_picture, read_picture
from vision_lab.randomness import mix, reseed
from vision_lab.types import Batch, ConfigurationError, DataError, Dataset, DataSpec, Sample, Split, Unreadable

Source = Callable[[], Dataset | None]
"""Makes a split's data set; None where the data has no such split of its own."""


class Examples(torch.utils.data.Dataset[tuple[Tensor, Any, Sample] | Unreadable]):
    """Reads, augments and fits one sample, its random numbers seeded by (seed, epoch, index)."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        spec: DataSpec,
        transforms: Sequence[v2.Transform],
        seed: int,
        relabel: Sequence[int] | None,
        max_pixels: int,
    ) -> None:
        self.relabel = relabel
        self.max_pixels = max_pixels
        self.dataset = dataset
        self.spec = spec
        self.transforms = transforms
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Any, Sample] | Unreadable:
        epoch, index = key
        reseed(self.seed, epoch, index)
        source, target = self.dataset[index]
        path = str(source) if isinstance(source, str | Path) else None
        try:
            read = read_picture if path else as_picture
            image = read(path or source, channels=self.spec.channels, max_pixels=self.max_pixels)
        except UnreadablePictureError as error:
            return Unreadable(path or f"sample {index}", str(error))
        sample = Sample(index, path, (image.shape[-2], image.shape[-1]))
        if self.relabel:
            target = self.relabel[int(target)]
        picture, target = tv_tensors.Image(image), torch.as_tensor(target)
        for transform in self.transforms:
            picture, target = transform(picture, target)
        if picture.shape[-2:] != self.spec.image_size:
            picture = v2.functional.resize(picture, list(self.spec.image_size), antialias=True)
        return picture.as_subclass(torch.Tensor), target, sample


def collate(examples: Sequence[tuple[Tensor, Any, Sample] | Unreadable]) -> Batch:
    """One batch of what could be read; the rest is named in it."""
    unreadable = [example for example in examples if isinstance(example, Unreadable)]
    readable = [example for example in examples if not isinstance(example, Unreadable)]
    if not readable:
        return Batch(torch.empty(0, dtype=torch.uint8), torch.empty(0, dtype=torch.int64), [], unreadable)
    images, targets, samples = zip(*readable, strict=True)
    return Batch(torch.stack(images), torch.stack(targets), samples, unreadable)


class DataModule(pl.LightningDataModule):
    """Loaders for any data set.

    Args:
        spec: what is said of the data; held against the data itself.
        train: makes the training data.
        val: makes the validation data; None, or a None from it: a stratified part of train.
        test: likewise.
        transforms: what is done to a training picture ("train") and to any other ("eval"), before it is fitted to
            ``spec.image_size``.
        batch_size: pictures a batch, in each process.
        num_workers: processes that read ahead; "auto": one for each core this process may use, at most 8.
        on_bad: a file that holds no picture stops the run, or is left out, counted and listed.
        seed: decides order, augmentation and splits.
        holdout: the part of train that stands in for a missing validation split, and again for a missing test split.
        per_class: train on that many pictures of each class only.
        shuffle: another order in each epoch; false keeps the first.
        max_pixels: a file whose picture has more is not decoded and counts as bad.
        relabel: the network's class for each of the data's labels, where the two differ.

    Raises:
        ConfigurationError, DataError: where an argument is out of range or the data does not hold what spec says.
    """

    def __init__(
        self,
        *,
        spec: DataSpec,
        train: Source | None,
        val: Source | None = None,
        test: Source | None = None,
        transforms: Mapping[Literal["train", "eval"], Sequence[v2.Transform]],
        batch_size: int,
        num_workers: int | Literal["auto"],
        on_bad: Literal["stop", "skip"],
        seed: int,
        holdout: float = 0.1,
        per_class: int | None = None,
        shuffle: bool = True,
        max_pixels: int = MAX_PIXELS,
        relabel: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        _check(batch_size=batch_size, num_workers=num_workers, on_bad=on_bad, holdout=holdout, per_class=per_class)
        self.spec = spec
        self.sources: dict[Split, Source] = {"train": train or _none, "val": val or _none, "test": test or _none}
        self.transforms = transforms
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.on_bad = on_bad
        self.seed = seed
        self.holdout = holdout
        self.per_class = per_class
        self.shuffle = shuffle
        self.max_pixels = max_pixels
        self.relabel = relabel
        self.measured: Split = "test"
        """The split that a test reads."""
        self.found: dict[Split, Dataset | None] = {}
        self.splits: dict[Split, Dataset] = {}
        self.unreadable: dict[str, str] = {}
        """path: reason, of all files left out so far."""
        self.done = (0, 0)
        """(epoch, training batches of it) that a run which goes on has behind it."""

    def prepare_data(self) -> None:
        """Let one process alone fetch what is not there yet."""
        if not self.splits:
            self.found = {split: source() for split, source in self.sources.items()}

    def setup(self, stage: str | None = None) -> None:
        """Make the three splits, once."""
        if not self.splits:
            found = self.found or {split: source() for split, source in self.sources.items()}
            if found["train"] is None:
                raise DataError("the data has no training split")
            for split, dataset in found.items():
                if dataset is not None and self.spec.target == "labels":
                    self._check_labels(split, dataset)
            self.splits = _divided(found, holdout=self.holdout, seed=self.seed)
            if self.per_class:
                labels = labels_of(self.splits["train"])
                chosen = _some_of_each(labels, count=self.per_class, seed=self.seed)
                self.splits["train"] = Subset(self.splits["train"], chosen)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """Where the data stands: called by Lightning for each checkpoint."""
        assert self.trainer is not None
        loop = self.trainer.fit_loop
        epoch, batch = vars(loop.epoch_progress.current), vars(loop.epoch_loop.batch_progress.current)
        batches = batch["processed"] if epoch["started"] > epoch["completed"] else 0
        self.gather_unreadable()
        return {"epoch": self.trainer.current_epoch, "batches": batches, "unreadable": dict(self.unreadable)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on there. Lightning restores its own place in the epoch, but would feed the first batches again."""
        self.done = (state_dict["epoch"], state_dict["batches"])
        self.unreadable = state_dict["unreadable"]

    def fingerprints(self) -> dict[str, dict[str, Any]]:
        """split: what its samples are, so that a change is noticed."""
        labelled = self.spec.target == "labels"
        return {split: fingerprint(dataset, labelled=labelled) for split, dataset in self.splits.items()}

    def train_dataloader(self) -> DataLoader[Any]:
        """Augmented, in the order of the epoch."""
        return self._loader("train", training=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """As they are, in the order of the data set."""
        return self._loader("val", training=False)

    def test_dataloader(self) -> DataLoader[Any]:
        """As they are, in the order of the data set."""
        return self._loader(self.measured, training=False)

    def eval_loader(self, split: Split) -> DataLoader[Any]:
        """Any split, train too, as it is."""
        return self._loader(split, training=False)

    def predict_dataloader(self) -> DataLoader[Any]:
        """What ``look_at`` was told."""
        return self._loader("predict", training=False)

    def look_at(self, dataset: Dataset) -> None:
        """Predict on this data set alone: the configured one may be absent, and is not touched."""
        self.splits = {"predict": dataset}

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Without waiting, where the batch lies in page-locked memory."""
        return batch.to(device, non_blocking=True)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Stop at, or note, the files that could not be read."""
        self.note_unreadable(batch)
        if batch.images.dtype != torch.uint8:
            raise ConfigurationError(
                f"a transform of augment makes {batch.images.dtype} of pictures; they stay uint8 until they are on the "
                "device: leave out ToDtype, ToTensor and Normalize"
            )
        return batch

    def note_unreadable(self, batch: Batch) -> None:
        """Keep account of a batch's unreadable files.

        Raises:
            DataError: where ``on_bad`` says stop.
        """
        if not batch.unreadable:
            return
        listed = "\n".join(f"  {path}: {reason}" for path, reason in batch.unreadable)
        if self.on_bad == "stop":
            raise DataError(
                f"{_pictures(len(batch.unreadable))} cannot be read:\n{listed}\n"
                "Mend or remove them, or type data.on_bad=skip to leave such files out, counted and listed."
            )
        self.unreadable.update(batch.unreadable)

    def gather_unreadable(self) -> None:
        """Let every process know of the files that the others left out."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            found: list[dict[str, str]] = [{} for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather_object(found, self.unreadable)
            self.unreadable = {path: reason for each in found for path, reason in each.items()}

    def class_weights(self) -> Tensor:
        """(num_classes,) float, the inverse of each class's share of the training labels, 1 on average over samples."""
        counts = torch.bincount(torch.tensor(labels_of(self.splits["train"])), minlength=self.spec.num_classes)
        return counts.sum() / (counts.clamp(min=1) * (counts > 0).sum())

    def _check_labels(self, split: Split, dataset: Dataset) -> None:
        if len(dataset) == 0:
            raise DataError(f"the {split} split of the data is empty")
        labels = labels_of(dataset)
        classes = len(self.relabel) if self.relabel else self.spec.num_classes
        if min(labels) < 0 or max(labels) >= classes:
            raise DataError(
                f"the {split} labels reach from {min(labels)} to {max(labels)}, but data.spec.class_names has "
                f"{classes} names (labels 0 to {classes - 1}): type the missing names"
            )

    def _loader(self, split: Split, *, training: bool) -> DataLoader[Any]:
        dataset = self.splits[split]
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        workers = self.num_workers if self.num_workers != "auto" else _workers(trainer.num_devices if trainer else 1)
        examples = Examples(
            dataset,
            spec=self.spec,
            transforms=self.transforms["train" if training else "eval"],
            seed=self.seed,
            relabel=self.relabel,
            max_pixels=self.max_pixels,
        )
        order = Order(
            len(dataset),
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=training,
            rank=rank,
            world=world,
            fixed=not self.shuffle,
            done=self.done if training else (0, 0),
        )
        return DataLoader(
            examples,
            batch_sampler=order,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            worker_init_fn=_begin_worker,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
        )


def _begin_worker(_: int) -> None:
    interruption.leave_to_parent()


def _none() -> None:
    """A split that the data does not have."""


def _divided(found: Mapping[Split, Dataset | None], *, holdout: float, seed: int) -> dict[Split, Dataset]:
    """The splits, with stratified parts of train for those that are missing."""
    train = found["train"]
    assert train is not None
    remaining = list(range(len(train)))
    splits: dict[Split, Dataset] = {}
    part = max(1, round(holdout * len(train)))
    for salt, split in enumerate(("test", "val")):
        dataset = found[split]  # type: ignore[index]
        if dataset is None:
            labels = labels_of(train)
            places = _stratified([labels[index] for index in remaining], count=part, seed=mix(seed, salt))
            held = {remaining[place] for place in places}
            dataset = Subset(train, sorted(held))  # type: ignore[arg-type]
            remaining = [index for index in remaining if index not in held]
        splits[split] = dataset  # type: ignore[index]
    splits["train"] = train if len(remaining) == len(train) else Subset(train, remaining)  # type: ignore[arg-type]
    return splits


def _stratified(labels: Sequence[int], *, count: int, seed: int) -> list[int]:
    """``count`` places in which each class has its share, by seed, in rising order."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator).tolist()
    # Spread the members of each class evenly over (0, 1): the first of all classes' members are then a fair sample.
    seen: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for label in labels:
        sizes[label] = sizes.get(label, 0) + 1
    ranks = []
    for place in shuffled:
        label = labels[place]
        seen[label] = seen.get(label, 0) + 1
        ranks.append(((seen[label] - 0.5) / sizes[label], place))
    return sorted(place for _, place in sorted(ranks)[:count])


def _some_of_each(labels: Sequence[int], *, count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    taken: dict[int, int] = {}
    chosen = []
    for place in torch.randperm(len(labels), generator=generator).tolist():
        taken[labels[place]] = taken.get(labels[place], 0) + 1
        if taken[labels[place]] <= count:
            chosen.append(place)
    return sorted(chosen)


def _workers(processes: int) -> int:
    """As many as there are cores for this process, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // processes))


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"


def _check(*, batch_size: int, num_workers: int | str, on_bad: str, holdout: float, per_class: int | None) -> None:
    errors = []
    if batch_size < 1:
        errors.append(f"data.batch_size={batch_size}: type a whole number of 1 or more")
    if num_workers != "auto" and (not isinstance(num_workers, int) or num_workers < 0):
        errors.append(f"data.num_workers={num_workers}: type auto, or a whole number of 0 or more")
    if on_bad not in ("stop", "skip"):
        errors.append(f"data.on_bad={on_bad}: type stop or skip")
    if not 0 < holdout < 0.5:
        errors.append(f"data.holdout={holdout}: type a part of the training data between 0 and 0.5")
    if per_class is not None and per_class < 1:
        errors.append(f"data.per_class={per_class}: type a whole number of 1 or more, or null for all")
    if errors:
        raise ConfigurationError("\n".join(errors))
