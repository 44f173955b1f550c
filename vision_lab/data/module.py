"""The data module: data loaders of any map-style dataset, with a reproducible order of samples."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import v2

from vision_lab.core import signals
from vision_lab.core.arguments import Count, Positive, Range
from vision_lab.core.batch import Batch
from vision_lab.core.errors import (
    AnnotationIssue,
    ConfigurationError,
    DataError,
    UnreadableFile,
)
from vision_lab.core.machine import available_cores
from vision_lab.core.protocols import Dataset
from vision_lab.core.spec import UNKNOWN_LABEL, DataSpec, Split
from vision_lab.data.cache import CacheSettings, cached_targets
from vision_lab.data.cache_folder import CacheFolder, Place
from vision_lab.data.cache_writer import GIGABYTE
from vision_lab.data.fingerprint import (
    fingerprint,
    get_labels,
    get_samples,
    list_origins,
    list_paths,
)
from vision_lab.data.image_io import MAX_PIXELS
from vision_lab.data.inspection import DatasetInspection
from vision_lab.data.sampler import EpochBatchSampler, SamplerFactory, shuffled_sampler
from vision_lab.data.splits import SplitSettings, evenly_spaced, sample_per_class, split_dataset
from vision_lab.data.statistics import (
    count_pixels,
    describe_single_class,
    inverse_frequencies,
    median_frequencies,
)
from vision_lab.data.targets import MaskTarget
from vision_lab.data.transformed_dataset import TransformedDataset, collate, init_worker

log = logging.getLogger(__name__)

MASKS_CHECKED = 50
"""Number of training masks that are checked before training."""

MASKS_COUNTED = 1000
"""Maximum number of training masks in which the pixels of each class are counted."""

MAX_AUTO_WORKERS = 8

EVAL_PIXELS = 4 * 224 * 224
"""Number of pixels in a batch that a CPU evaluates fastest.

SqueezeNet at 224 px processes 1.8 times as many images in batches of 4 as in batches of 32.
"""

DataSource = Callable[..., Dataset | None]
"""Called with ``split=``, creates the dataset of a split; None if the data has no such split."""

SPLITS: tuple[Split, ...] = ("train", "val", "test")


class DataModule(pl.LightningDataModule):
    """Data loaders of a dataset.

    Args:
        spec: spec of the data; the data itself is checked against it.
        source: called with ``split="train"``, ``"val"`` and ``"test"``, creates the dataset of the
            split. If it returns None for val or test, part of train is held out.
        transforms: transforms of training images ("train") and of all others ("eval"), before they
            are resized to ``spec.image_size``.
        batch_size: number of images in a batch, in each process.
        eval_batch_size: the same for validation, test and prediction; "auto" for ``batch_size`` on
            GPUs, and on CPUs for at most ``EVAL_PIXELS`` pixels, whose feature maps stay in the
            cache.
        num_workers: number of DataLoader workers; "auto" for one per available core, at most 8.
        on_error: whether an unreadable file stops the run, or is skipped and listed.
        seed: seed of order and augmentation.
        sampler: called with the training split and ``generator=``, creates the sampler of training.
        holdout_fraction: size of a held-out split, as a fraction of train.
        split_seed: seed of the selection of held-out splits, of folds and of
            ``samples_per_class``; None for ``seed``.
        folds: number of folds of cross-validation; None for the splits of the dataset.
        fold: the fold that is the test split, from 0.
        groups: which images belong together and stay in one split: ``folder`` for those in folders
            of one name, or the path of a CSV file with the columns ``image`` and ``group``.
        samples_per_class: number of images of each class to train on; None for all.
        shuffle: whether each epoch has another order; False keeps that of the first.
        max_pixels: files with more pixels are not decoded and count as unreadable.
        cache: where decoded images are kept, "memory" or "disk"; None to decode them in each epoch.
        cache_limit: maximum size of the cache of a dataset in GB.
        label_map: label of the network for each label of the data; None if they are the same.

    Raises:
        ConfigurationError: if arguments do not fit together.
        DataError: if the data does not match its spec.
    """

    keep_size = False
    """Whether images keep their original size; for predictions only."""

    def __init__(
        self,
        *,
        spec: DataSpec,
        source: DataSource | None,
        transforms: Mapping[Literal["train", "eval"], Sequence[v2.Transform]],
        batch_size: Count,
        eval_batch_size: Count | Literal["auto"] = "auto",
        num_workers: Annotated[int, Range(ge=0)] | Literal["auto"],
        on_error: Literal["raise", "skip"],
        seed: int,
        sampler: SamplerFactory = shuffled_sampler,
        holdout_fraction: Annotated[float, Range(gt=0, lt=0.5)] = 0.1,
        split_seed: Annotated[int, Range(ge=0)] | None = None,
        folds: Annotated[int, Range(ge=2)] | None = None,
        fold: Annotated[int, Range(ge=0)] | None = None,
        groups: str | None = None,
        samples_per_class: Count | None = None,
        shuffle: bool = True,
        max_pixels: Count = MAX_PIXELS,
        cache: Place | None = None,
        cache_limit: Positive = 100,
        label_map: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.source = source
        self.transforms = transforms
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.on_error = on_error
        self.seed = seed
        self.sampler = sampler
        self.split_seed = seed if split_seed is None else split_seed
        self.split_settings = SplitSettings(
            holdout_fraction=holdout_fraction,
            seed=self.split_seed,
            num_folds=folds,
            fold=_check_fold(folds, fold),
            groups=groups,
        )
        self.samples_per_class = samples_per_class
        self.shuffle = shuffle
        self.max_pixels = max_pixels
        self.caches: CacheFolder | None = None
        if cache is not None:
            limit = int(cache_limit * GIGABYTE)
            self.caches = CacheFolder(cache, limit=limit)
        self.label_map = label_map
        self.test_split: Split = "test"
        """The split that ``trainer.test`` reads."""
        self.datasets: dict[Split, Dataset | None] = {}
        self.splits: dict[Split, Dataset] = {}
        self.unreadable: dict[str, str] = {}
        """Reason by path, for all files skipped so far."""
        self.annotation_issues: list[AnnotationIssue] = []
        """Problems that datasets list in their attribute ``issues``."""
        self.weights: Tensor | None = None
        self.resume_position = (0, 0)
        """(epoch, batches of it) already completed when a run resumes."""

    def prepare_data(self) -> None:
        """Download missing files, in one process only."""
        if self.splits:
            return
        self._create_datasets()
        self._check_datasets()
        if self.caches is not None:
            settings = CacheSettings.from_spec(self.spec, max_pixels=self.max_pixels)
            for split, dataset in self.datasets.items():
                if dataset is not None:
                    self.caches.ensure(
                        dataset,
                        settings,
                        kind=cached_targets(self.spec),
                        name=split,
                        num_workers=self.effective_num_workers,
                    )

    def setup(self, stage: str | None = None) -> None:
        """Create the three splits, once."""
        if self.splits:
            return
        if not self.datasets:  # in processes that have not prepared the data
            self._create_datasets()
            self._check_datasets()
        if self.caches is not None:
            self._open_caches(self.caches)
        train = self.datasets["train"]
        assert train is not None
        if self.spec.target_type == "masks":
            self._warn_empty_masks(train)
        self.splits = split_dataset(self.datasets, self.spec.target_type, self.split_settings)
        if self.samples_per_class:
            self._reduce_training_split(self.samples_per_class)

    def state_dict(self) -> dict[str, Any]:
        """Return the position in training and the skipped files, for a checkpoint."""
        assert self.trainer is not None
        loop = self.trainer.fit_loop
        epoch = vars(loop.epoch_progress.current)
        batch = vars(loop.epoch_loop.batch_progress.current)
        is_within_epoch = epoch["started"] > epoch["completed"]
        self.sync_unreadable()
        return {
            "epoch": self.trainer.current_epoch,
            "batches": batch["processed"] if is_within_epoch else 0,
            "unreadable": dict(self.unreadable),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the position; Lightning restores its own but yields the first batches again."""
        self.resume_position = (state_dict["epoch"], state_dict["batches"])
        self.unreadable = state_dict["unreadable"]

    def fingerprints(self) -> dict[str, dict[str, Any]]:
        """Return the fingerprint of each split, to notice changes of the data."""
        has_labels = self.spec.target_type == "labels"
        splits = self.splits.items()
        return {split: fingerprint(dataset, has_labels=has_labels) for split, dataset in splits}

    def train_dataloader(self) -> DataLoader[Any]:
        """Load augmented training images, in the order of the epoch."""
        return self._loader("train", training=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Load validation images, in the order of the dataset."""
        limit = self._batch_limit("val", "limit_val_batches")
        return self._loader("val", training=False, limit=limit)

    def test_dataloader(self) -> DataLoader[Any]:
        """Load test images, in the order of the dataset."""
        limit = self._batch_limit(self.test_split, "limit_test_batches")
        return self._loader(self.test_split, training=False, limit=limit)

    def on_exception(self, exception: BaseException) -> None:
        """End the workers of the training split after an exception in validation too.

        Lightning ends those of the active loop only. The others would live until they are garbage
        collected, which waits 5 s for each of them.
        """
        assert self.trainer is not None
        self.trainer.fit_loop.teardown()

    def eval_loader(
        self,
        split: Split,
        *,
        max_samples: int | None = None,
    ) -> DataLoader[Any]:
        """Load a split without augmentation.

        Args:
            split: the split.
            max_samples: maximum number of samples, evenly spaced; None for all.
        """
        return self._loader(split, training=False, max_samples=max_samples)

    def load_images(
        self, split: Split, indices: Sequence[int], *, max_samples: int | None = None
    ) -> list[Tensor]:
        """Load images of a split, or of the subset that ``eval_loader`` yields.

        Args:
            split: the split.
            indices: indices of the images.
            max_samples: see ``eval_loader``.

        Returns:
            (C, H, W) uint8 images, as in a batch; unreadable ones are skipped.

        Raises:
            DataError: if one is unreadable and ``on_error`` is "raise".
        """
        dataset = self._transformed(split, training=False, max_samples=max_samples)
        items = [dataset[0, index] for index in indices]
        images, unreadable = [], []
        for item in items:
            if isinstance(item, UnreadableFile):
                unreadable.append(item)
            else:
                images.append(item[0])
        self.record_unreadable(collate(unreadable))
        return images

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Copy a batch asynchronously, if it is in page-locked memory."""
        return batch.to(device, non_blocking=True)

    def on_after_batch_transfer(
        self,
        batch: Batch,
        dataloader_idx: int,
    ) -> Batch:
        """Handle unreadable files, and check that transforms have kept images uint8."""
        self.record_unreadable(batch)
        if batch.images.dtype != torch.uint8:
            raise ConfigurationError(
                f"a transform in augment converts images to {batch.images.dtype}; they must stay "
                "uint8 until they are on the device: omit ToDtype, ToTensor and Normalize"
            )
        return batch

    def inspections(self, *, small_object_pixels: int) -> list[DatasetInspection]:
        """Create the inspection of each split; see ``DatasetInspection``.

        Args:
            small_object_pixels: objects whose shorter side has fewer pixels count as small.
        """
        inspections = []
        for split in sorted(self.splits, key=SPLITS.index):
            dataset = self._transformed(split, training=False)
            inspections.append(
                DatasetInspection(
                    split, dataset, self.spec, small_object_pixels=small_object_pixels
                )
            )
        return inspections

    def find_changed_files(self) -> list[tuple[Split, UnreadableFile]]:
        """Find files with other content than their dataset expects, and the split of each.

        A dataset that knows finds them in its method ``find_changed_files``.
        """
        changed: list[tuple[Split, UnreadableFile]] = []
        for split, dataset in self.datasets.items():
            find = getattr(dataset, "find_changed_files", None)
            if find is not None:
                changed += [(split, file) for file in find()]
        return changed

    def record_unreadable(self, batch: Batch) -> None:
        """Record the unreadable files of a batch.

        Raises:
            DataError: if there are any and ``on_error`` is "raise".
        """
        if not batch.unreadable:
            return
        if self.on_error == "raise":
            raise DataError(explain_unreadable(batch.unreadable))
        self.unreadable.update(batch.unreadable)

    def sync_unreadable(self) -> None:
        """Exchange the skipped files between all ranks."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            gathered: list[dict[str, str]] = [{} for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather_object(gathered, self.unreadable)
            self.unreadable = {}
            for unreadable in gathered:
                self.unreadable.update(unreadable)

    def image_paths(self, split: Split) -> list[str]:
        """Return the paths of a split's images; empty if they have none."""
        return [str(sample[0]) for sample in get_samples(self.splits[split]) or ()]

    def list_origins(self, split: Split) -> list[str]:
        """Return where each sample of a split is from, to find it in other runs.

        Args:
            split: the split.

        Returns:
            The path of each image, or its original split and the index in it, such as ``train 17``.
        """
        paths = list_paths(self.splits[split])
        if paths is not None:
            return [str(path) for path in paths]
        names = {id(dataset): name for name, dataset in self.datasets.items()}
        return list_origins(self.splits[split], names)

    def class_weights(self) -> Tensor:
        """Compute class weights from the training split, (num_classes,) float.

        For labels they are the inverse class frequencies, with mean 1 over samples. For masks they
        are median frequency balancing (Eigen 2014, section 6.3.2), over at most ``MASKS_COUNTED``
        masks: the frequency of a class is its fraction of the pixels of images that contain it.
        """
        if self.weights is None:
            train = self.splits["train"]
            if self.spec.target_type == "labels":
                self.weights = inverse_frequencies(get_labels(train), self.spec.num_classes)
            else:
                counts = self._count_pixels(train, max_samples=MASKS_COUNTED)
                self.weights = median_frequencies(counts[:, :-1])
        return self.weights

    @property
    def effective_num_workers(self) -> int:
        """The number of DataLoader workers, with "auto" replaced."""
        if self.num_workers != "auto":
            return self.num_workers
        processes = self.trainer.num_devices if self.trainer else 1
        return max(1, min(MAX_AUTO_WORKERS, available_cores() // processes))

    @property
    def effective_eval_batch_size(self) -> int:
        """The number of images in a batch of an evaluation, with "auto" replaced."""
        if self.eval_batch_size != "auto":
            return self.eval_batch_size
        if self.trainer and self.trainer.strategy.root_device.type != "cpu":
            return self.batch_size
        height, width = self.spec.image_size
        return max(1, min(self.batch_size, EVAL_PIXELS // (height * width)))

    def _create_datasets(self) -> None:
        if self.source is None:
            raise DataError("the data has no source: there is nothing to train on")
        self.datasets = {split: self.source(split=split) for split in SPLITS}

    def _check_datasets(self) -> None:
        if self.datasets["train"] is None:
            raise DataError("the data has no training split")
        for split, dataset in self.datasets.items():
            if dataset is not None:
                self._check_split(split, dataset)
                self.annotation_issues += getattr(dataset, "issues", ())

    def _open_caches(self, caches: CacheFolder) -> None:
        settings = CacheSettings.from_spec(self.spec, max_pixels=self.max_pixels)
        has_labels = self.spec.target_type == "labels"
        for split, dataset in self.datasets.items():
            if dataset is not None:
                self.datasets[split] = caches.open(dataset, settings, has_labels=has_labels)

    def _check_split(
        self,
        split: Split,
        dataset: Dataset,
    ) -> None:
        if len(dataset) == 0:
            raise DataError(f"the {split} split of the data is empty")
        if self.spec.target_type != "labels":
            return
        labels = get_labels(dataset)
        num_labels = len(self.label_map) if self.label_map else self.spec.num_classes
        num_unknown = labels.count(UNKNOWN_LABEL)
        if num_unknown:
            raise DataError(
                f"{num_unknown:,} of the {len(labels):,} images of the {split} split have the "
                f"label {UNKNOWN_LABEL}, which means unknown: label them, or remove them"
            )
        if min(labels) < 0 or max(labels) >= num_labels:
            raise DataError(
                f"the {split} labels range from {min(labels)} to {max(labels)}, but "
                f"data.spec.class_names has {num_labels} names (labels 0 to {num_labels - 1}): "
                "type the missing names"
            )

    def _reduce_training_split(self, samples_per_class: int) -> None:
        if self.spec.target_type != "labels":
            raise ConfigurationError(
                f"data.samples_per_class={samples_per_class} requires labels, which this data does "
                "not have: type null"
            )
        train = self.splits["train"]
        labels = get_labels(train)
        selected = sample_per_class(labels, count=samples_per_class, seed=self.split_seed)
        self.splits["train"] = Subset(train, selected)  # type: ignore[arg-type]

    def _count_pixels(self, dataset: Dataset, *, max_samples: int) -> Tensor:
        lookup = MaskTarget(self.spec, self.label_map).class_lookup
        return count_pixels(
            dataset,
            lookup,
            num_classes=self.spec.num_classes,
            max_samples=max_samples,
        )

    def _warn_empty_masks(self, dataset: Dataset) -> None:
        counts = self._count_pixels(dataset, max_samples=MASKS_CHECKED).sum(dim=0)
        content = describe_single_class(counts, self.spec.class_names)
        if content:
            log.warning(
                "the training masks contain %s: if the ignored value (255) stands for a class, "
                "type data.class_values=[0,255], one value for each class",
                content,
            )

    def _transformed(
        self, split: Split, *, training: bool, max_samples: int | None = None
    ) -> TransformedDataset:
        dataset = self.splits[split]
        if max_samples is not None and max_samples < len(dataset):
            indices = evenly_spaced(len(dataset), max_samples)
            dataset = Subset(dataset, indices)  # type: ignore[arg-type]
        return TransformedDataset(
            dataset,
            spec=self.spec,
            transforms=self.transforms["train" if training else "eval"],
            seed=self.seed,
            label_map=self.label_map,
            max_pixels=self.max_pixels,
            keep_size=self.keep_size,
        )

    def _batch_limit(
        self,
        split: Split,
        setting: str,
    ) -> int:
        """Return the number of batches that an evaluation will read, 0 for all of them.

        Args:
            split: the split.
            setting: name of the trainer's setting: a number of batches, or a fraction.
        """
        limit = getattr(self.trainer, setting, None)
        if isinstance(limit, float) and self.trainer:
            step_size = self.effective_eval_batch_size * self.trainer.world_size
            if limit < 1:
                return int(limit * ceil(len(self.splits[split]) / step_size))
            return 0
        return int(limit or 0)

    def _loader(
        self, split: Split, *, training: bool, max_samples: int | None = None, limit: int = 0
    ) -> DataLoader[Any]:
        dataset = self._transformed(split, training=training, max_samples=max_samples)
        trainer = self.trainer
        if self.caches is not None and trainer is not None:
            self.caches.release()  # Lightning has waited until all processes have opened them
        generator = torch.Generator()
        sampler = self.sampler(self.splits[split], generator=generator) if training else None
        batch_sampler = EpochBatchSampler(
            len(dataset),
            batch_size=self.batch_size if training else self.effective_eval_batch_size,
            sampler=sampler,
            generator=generator,
            seed=self.seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            same_every_epoch=not self.shuffle,
            resume_position=self.resume_position if training else (0, 0),
            limit=limit,
            prefetch=_find_prefetch(dataset.dataset),
        )
        num_workers = self.effective_num_workers
        if num_workers > 0:
            signals.end_workers_at_exit()
        return DataLoader(
            dataset,
            batch_sampler=batch_sampler,
            num_workers=num_workers,
            collate_fn=collate,
            persistent_workers=num_workers > 0,
            worker_init_fn=init_worker,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
        )


def explain_unreadable(files: Sequence[UnreadableFile]) -> str:
    """Return the error for files that cannot be read."""
    subject = "1 image" if len(files) == 1 else f"{len(files)} images"
    lines = "\n".join(f"  {path}: {reason}" for path, reason in files)
    return (
        f"{subject} cannot be read:\n{lines}\nFix or remove them, or type data.on_error=skip to "
        "skip such files and list them."
    )


def _find_prefetch(dataset: Dataset) -> Callable[[list[list[int]]], Iterable[list[int]]]:
    """Return what copies the shards of the next batches, or else ``iter``."""
    prefetcher = _find_prefetcher(dataset)
    return iter if prefetcher is None else prefetcher.prefetch


def _find_prefetcher(dataset: Dataset) -> Any:
    """Return the attribute ``prefetcher`` of a dataset, for the indices of a subset."""
    if isinstance(dataset, Subset):
        prefetcher = _find_prefetcher(dataset.dataset)  # type: ignore[arg-type]
        return None if prefetcher is None else prefetcher.select(dataset.indices)
    return getattr(dataset, "prefetcher", None)


def _check_fold(folds: int | None, fold: int | None) -> int:
    """Return the selected fold, 0 without folds."""
    if folds is None:
        if fold is not None:
            raise ConfigurationError(f"data.fold={fold} requires data.folds, such as data.folds=5")
        return 0
    if fold is None or fold >= folds:
        came = f"data.folds={folds}" if fold is None else f"data.fold={fold} data.folds={folds}"
        folds_typed = ",".join(map(str, range(folds))) if folds <= 10 else f"0,...,{folds - 1}"
        raise ConfigurationError(
            f"{came}: type the fold to test on, from 0 to {folds - 1}: data.fold=0, or all of them "
            f"by -m data.fold={folds_typed}"
        )
    return fold


class PredictionData(DataModule):
    """Images to predict, of which nothing else is known; the configured dataset may be absent.

    Args:
        dataset: the images, with None as targets.
        keep_size: whether to keep their original sizes; the batch size is then 1.
        arguments: arguments of ``DataModule`` but its source.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        keep_size: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(source=None, **arguments)
        self.splits = {"predict": dataset}
        self.keep_size = keep_size
        if keep_size:
            self.eval_batch_size = 1

    def predict_dataloader(self) -> DataLoader[Any]:
        """Load the images in their order."""
        return self._loader("predict", training=False)
