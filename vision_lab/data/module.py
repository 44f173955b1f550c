"""The one DataModule: three map-style data sets of (picture, target), made into batches in a known order."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import v2

from vision_lab.core.arguments import Count, Range
from vision_lab.core.batch import Batch
from vision_lab.core.errors import (
    AnnotationIssue,
    ConfigurationError,
    DataError,
    UnreadableFile,
    UnreadableFileError,
)
from vision_lab.core.protocols import Dataset
from vision_lab.core.spec import IGNORE_INDEX, DataSpec, Split
from vision_lab.data.fingerprint import fingerprint, labels_of, samples_of
from vision_lab.data.image_io import MAX_PIXELS
from vision_lab.data.inspection import DatasetInspection
from vision_lab.data.sampler import EpochBatchSampler
from vision_lab.data.splits import evenly_spaced, sample_per_class, split_dataset
from vision_lab.data.targets import MaskTarget
from vision_lab.data.transformed_dataset import TransformedDataset, collate, init_worker
from vision_lab.data.transforms import MultiSampleTransform

log = logging.getLogger(__name__)

BOX_TRANSFORMS = (MultiSampleTransform, v2.RandomIoUCrop)
"""Transforms that need boxes."""

MASKS_CHECKED = 50
"""Training masks that are looked at before training begins."""

MASKS_COUNTED = 1000
"""Training pictures that classes are counted in."""

DatasetFactory = Callable[[], Dataset | None]
"""Makes a split's data set; None where the data has no such split of its own."""


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
        label_map: the network's class for each of the data's labels, where the two differ.

    Raises:
        ConfigurationError, DataError: where an argument is out of range or the data does not hold what spec says.
    """

    def __init__(
        self,
        *,
        spec: DataSpec,
        train: DatasetFactory | None,
        val: DatasetFactory | None = None,
        test: DatasetFactory | None = None,
        transforms: Mapping[Literal["train", "eval"], Sequence[v2.Transform]],
        batch_size: Count,
        num_workers: Annotated[int, Range(ge=0)] | Literal["auto"],
        on_error: Literal["raise", "skip"],
        seed: int,
        holdout_fraction: Annotated[float, Range(gt=0, lt=0.5)] = 0.1,
        samples_per_class: Count | None = None,
        shuffle: bool = True,
        max_pixels: Count = MAX_PIXELS,
        label_map: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if spec.target_type == "boxes" and transforms["eval"]:
            raise ConfigurationError(
                "augment.eval must be empty for boxes, which are measured in the pixels of their files: "
                "type augment.eval=[], or augment=flip"
            )
        if spec.target_type != "boxes" and any(
            isinstance(each, BOX_TRANSFORMS) for each in transforms["train"]
        ):
            raise ConfigurationError(
                f"augment.train has a transform for boxes, but the data holds {spec.target_type}: type augment=flip"
            )
        for split, source in (("train", train), ("val", val), ("test", test)):
            if source is not None and not callable(source):
                raise ConfigurationError(
                    f"data.{split} is a {type(source).__name__}, but a function is needed that makes a data set: "
                    f"type +data.{split}._partial_=true"
                )
        self.spec = spec
        self.sources: dict[Split, DatasetFactory] = {
            "train": train or _no_dataset,
            "val": val or _no_dataset,
            "test": test or _no_dataset,
        }
        self.transforms = transforms
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.on_error = on_error
        self.seed = seed
        self.holdout_fraction = holdout_fraction
        self.samples_per_class = samples_per_class
        self.shuffle = shuffle
        self.max_pixels = max_pixels
        self.label_map = label_map
        self.test_split: Split = "test"
        """The split that a test reads."""
        self.found: dict[Split, Dataset | None] = {}
        self.splits: dict[Split, Dataset] = {}
        self.unreadable: dict[str, str] = {}
        """path: reason, of all files left out so far."""
        self.annotation_issues: list[AnnotationIssue] = []
        """What was wrong with annotations, by a data set's own account (``faults``)."""
        self.keep_size = False
        self.weights: Tensor | None = None
        self.resume_position = (0, 0)
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
                if dataset is not None and len(dataset) == 0:
                    raise DataError(f"the {split} split of the data is empty")
                if dataset is not None and self.spec.target_type == "labels":
                    self._check_labels(split, dataset)
            if self.spec.target_type == "masks":
                self._look_at_masks(found["train"])
            self.annotation_issues = [
                fault for dataset in found.values() for fault in getattr(dataset, "faults", ())
            ]
            labels = labels_of(found["train"]) if self.spec.target_type == "labels" else None
            self.splits = split_dataset(
                found, labels, holdout=self.holdout_fraction, seed=self.seed
            )
            if self.samples_per_class:
                if labels is None:
                    raise ConfigurationError(
                        f"data.samples_per_class={self.samples_per_class} is for labels, this data has none: type null"
                    )
                chosen = sample_per_class(
                    labels_of(self.splits["train"]), count=self.samples_per_class, seed=self.seed
                )
                self.splits["train"] = Subset(self.splits["train"], chosen)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """Where the data stands: called by Lightning for each checkpoint."""
        assert self.trainer is not None
        loop = self.trainer.fit_loop
        epoch, batch = (
            vars(loop.epoch_progress.current),
            vars(loop.epoch_loop.batch_progress.current),
        )
        batches = batch["processed"] if epoch["started"] > epoch["completed"] else 0
        self.sync_unreadable()
        return {
            "epoch": self.trainer.current_epoch,
            "batches": batches,
            "unreadable": dict(self.unreadable),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on there. Lightning restores its own place in the epoch, but would feed the first batches again."""
        self.resume_position = (state_dict["epoch"], state_dict["batches"])
        self.unreadable = state_dict["unreadable"]

    def fingerprints(self) -> dict[str, dict[str, Any]]:
        """split: what its samples are, so that a change is noticed."""
        labelled = self.spec.target_type == "labels"
        return {
            split: fingerprint(dataset, labelled=labelled) for split, dataset in self.splits.items()
        }

    def train_dataloader(self) -> DataLoader[Any]:
        """Augmented, in the order of the epoch."""
        return self._loader("train", training=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """As they are, in the order of the data set."""
        return self._loader("val", training=False, limit=self._limit("val", of="limit_val_batches"))

    def test_dataloader(self) -> DataLoader[Any]:
        """As they are, in the order of the data set."""
        return self._loader(
            self.test_split,
            training=False,
            limit=self._limit(self.test_split, of="limit_test_batches"),
        )

    def eval_loader(self, split: Split, *, most: int | None = None) -> DataLoader[Any]:
        """Any split, train too, as it is; of it at most so many samples, evenly spaced."""
        return self._loader(split, training=False, most=most)

    def load_images(
        self, split: Split, places: Sequence[int], *, most: int | None = None
    ) -> list[Tensor]:
        """(C, H, W) uint8: pictures of a split, or of the part of it that ``eval_loader`` gives, as in a batch.

        Raises:
            DataError: where one cannot be read.
        """
        examples = self._examples(split, training=False, most=most)
        found = [examples[0, place] for place in places]
        self.record_unreadable(
            collate([each for each in found if isinstance(each, UnreadableFile)])
        )
        return [each[0] for each in found if not isinstance(each, UnreadableFile)]

    def predict_dataloader(self) -> DataLoader[Any]:
        """What ``look_at`` was told."""
        return self._loader("predict", training=False)

    def set_predict_dataset(self, dataset: Dataset, *, whole: bool = False) -> None:
        """Predict on this data set alone: the configured one may be absent, and is not touched.

        Args:
            dataset: the pictures.
            whole: do not fit them to ``spec.image_size``; a batch is one picture then.
        """
        self.splits = {"predict": dataset}
        self.keep_size = whole
        self.batch_size = 1 if whole else self.batch_size

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Without waiting, where the batch lies in page-locked memory."""
        return batch.to(device, non_blocking=True)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Stop at, or note, the files that could not be read."""
        self.record_unreadable(batch)
        if batch.images.dtype != torch.uint8:
            raise ConfigurationError(
                f"a transform of augment makes {batch.images.dtype} of pictures; they stay uint8 until they are on the "
                "device: leave out ToDtype, ToTensor and Normalize"
            )
        return batch

    def inspections(self, *, tiny: int) -> list[DatasetInspection]:
        """What reads every sample of every split and tells of it; see ``Examination``."""
        return [
            DatasetInspection(split, self._examples(split, training=False), self.spec, tiny=tiny)
            for split in sorted(self.splits, key=("train", "val", "test").index)
        ]

    def record_unreadable(self, batch: Batch) -> None:
        """Keep account of a batch's unreadable files.

        Raises:
            DataError: where ``on_bad`` says raise.
        """
        if not batch.unreadable:
            return
        listed = "\n".join(f"  {path}: {reason}" for path, reason in batch.unreadable)
        if self.on_error == "raise":
            raise DataError(
                f"{_count_images(len(batch.unreadable))} cannot be read:\n{listed}\n"
                "Mend or remove them, or type data.on_error=skip to leave such files out, counted and listed."
            )
        self.unreadable.update(batch.unreadable)

    def sync_unreadable(self) -> None:
        """Let every process know of the files that the others left out."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            found: list[dict[str, str]] = [{} for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather_object(found, self.unreadable)
            self.unreadable = {path: reason for each in found for path, reason in each.items()}

    def image_paths(self, split: Split) -> list[str]:
        """The files of a split's pictures; none where they have none."""
        return [str(sample[0]) for sample in samples_of(self.splits[split]) or ()]

    def class_weights(self) -> Tensor:
        """(num_classes,) float: how much each class is to count so that those that are rare are learnt too.

        For labels the inverse of each class's share of the training samples, 1 on average over samples. For masks the
        median of all classes' frequencies over the class's own, a frequency being the share of a class in the pixels of
        the pictures that show it (Eigen 2014, section 6.3.2), of at most ``COUNTED`` training masks, evenly spaced.
        """
        if self.weights is None:
            self.weights = self._class_weights()
        return self.weights

    def _class_weights(self) -> Tensor:
        if self.spec.target_type == "labels":
            counts = torch.bincount(
                torch.tensor(labels_of(self.splits["train"])), minlength=self.spec.num_classes
            )
            return counts.sum() / (counts.clamp(min=1) * (counts > 0).sum())
        pixels = self._pixels(self.splits["train"], most=MASKS_COUNTED)[:, :-1]
        of = ((pixels > 0) * pixels.sum(dim=1, keepdim=True)).sum(dim=0)
        frequencies = pixels.sum(dim=0) / of.clamp(min=1)
        seen = frequencies[frequencies > 0]
        return torch.where(
            frequencies > 0, (seen.quantile(0.5) if len(seen) else 0.0) / frequencies, 0.0
        )

    def _look_at_masks(self, dataset: Dataset) -> None:
        """Warn of masks that would teach nothing: those of 0 and 255 whose 255 nobody said to be a class."""
        pixels = self._pixels(dataset, most=MASKS_CHECKED).sum(dim=0)
        seen = [
            name
            for name, count in zip(self.spec.class_names, pixels[:-1].tolist(), strict=True)
            if count
        ]
        if len(seen) < 2 and self.spec.num_classes > 1:
            log.warning(
                "the training masks show no class but %s, and %.0f %% of their pixels do not count: if a value that "
                "is ignored (255) stands for a class, type data.class_values=[0,255], one for each class",
                ", ".join(seen) or "none",
                100 * pixels[-1] / pixels.sum().clamp(min=1),
            )

    def _pixels(self, dataset: Dataset, *, most: int) -> Tensor:
        """(n, num_classes + 1): the pixels of each class, and of none, in at most so many masks, evenly spaced."""
        table, counts = MaskTarget(self.spec, self.label_map).class_lookup, []
        for index in evenly_spaced(len(dataset), min(most, len(dataset))):
            with suppress(UnreadableFileError):  # met again in training, and dealt with there
                mask = table[
                    torch.as_tensor(np.asarray(dataset[index][1])).int().clamp(0, IGNORE_INDEX)
                ]
                found = torch.bincount(mask.flatten().int(), minlength=IGNORE_INDEX + 1).float()
                counts.append(torch.cat([found[: self.spec.num_classes], found[-1:]]))
        return torch.stack(counts) if counts else torch.zeros(1, self.spec.num_classes + 1)

    def _check_labels(self, split: Split, dataset: Dataset) -> None:
        labels = labels_of(dataset)
        classes = len(self.label_map) if self.label_map else self.spec.num_classes
        if min(labels) < 0 or max(labels) >= classes:
            raise DataError(
                f"the {split} labels reach from {min(labels)} to {max(labels)}, but data.spec.class_names has "
                f"{classes} names (labels 0 to {classes - 1}): type the missing names"
            )

    @property
    def effective_num_workers(self) -> int:
        """Processes that read ahead."""
        processes = self.trainer.num_devices if self.trainer else 1
        return _workers(processes) if self.num_workers == "auto" else self.num_workers

    def _examples(
        self, split: Split, *, training: bool, most: int | None = None
    ) -> TransformedDataset:
        dataset = self.splits[split]
        if most is not None and most < len(dataset):
            dataset = Subset(dataset, evenly_spaced(len(dataset), most))  # type: ignore[arg-type]
        return TransformedDataset(
            dataset,
            spec=self.spec,
            transforms=self.transforms["train" if training else "eval"],
            seed=self.seed,
            label_map=self.label_map,
            max_pixels=self.max_pixels,
            whole=self.keep_size,
        )

    def _limit(self, split: Split, *, of: str) -> int:
        """Batches that an evaluation of a split will read, by a setting of the trainer; 0: all of them."""
        limit = getattr(self.trainer, of, None)
        if isinstance(limit, float) and self.trainer:
            batches = -(-len(self.splits[split]) // (self.batch_size * self.trainer.world_size))
            return int(limit * batches) if limit < 1 else 0
        return int(limit or 0)

    def _loader(
        self, split: Split, *, training: bool, most: int | None = None, limit: int = 0
    ) -> DataLoader[Any]:
        examples = self._examples(split, training=training, most=most)
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        order = EpochBatchSampler(
            len(examples),
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=training,
            rank=rank,
            world=world,
            fixed=not self.shuffle,
            done=self.resume_position if training else (0, 0),
            limit=limit,
        )
        return DataLoader(
            examples,
            batch_sampler=order,
            num_workers=self.effective_num_workers,
            collate_fn=collate,
            persistent_workers=self.effective_num_workers > 0,
            worker_init_fn=init_worker,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
        )


def _no_dataset() -> None:
    """A split that the data does not have."""


def _workers(processes: int) -> int:
    """As many as there are cores for this process, at most 8."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(8, cores // processes))


def _count_images(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"
