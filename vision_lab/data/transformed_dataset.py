"""Samples of a dataset, read, validated, augmented and resized, and their collation."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2

from vision_lab.core import signals
from vision_lab.core.batch import Batch, BoxTargets, Sample
from vision_lab.core.errors import ConfigurationError, UnreadableFile, UnreadableFileError
from vision_lab.core.protocols import Dataset
from vision_lab.core.spec import DataSpec
from vision_lab.data.cache import CachedImage
from vision_lab.data.fingerprint import get_shards, get_window
from vision_lab.data.image_io import InvalidImageError, find_path, open_source, to_uint8_image
from vision_lab.data.reduction import (
    Plan,
    ReductionPlanner,
    apply_planned,
    flatten_transforms,
    make_planner,
)
from vision_lab.data.targets import make_target_handler
from vision_lab.data.transforms import MultiSampleTransform
from vision_lab.training.seeding import seed_all


class DecodedSample(NamedTuple):
    """A sample before its transforms."""

    image: tv_tensors.Image
    """(C, H, W) uint8, which may be reduced."""
    target: Any
    """The validated target, in pixels of the original image."""
    path: str | None
    size: tuple[int, int]
    """(height, width) of the original image in pixels."""
    plan: Plan
    """How the image was decoded."""


class TransformedDataset(torch.utils.data.Dataset[tuple[Tensor, Any, Sample] | UnreadableFile]):
    """A dataset with transforms, whose random numbers depend on seed, epoch and index only.

    Args:
        dataset: the samples.
        spec: spec of the data.
        transforms: transforms of image and target, before they are resized to ``spec.image_size``.
        seed: the seed.
        label_map: label of the network for each label of the data; None if they are the same.
        max_pixels: maximum number of pixels of an image.
        keep_size: whether to keep the original size of images.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        spec: DataSpec,
        transforms: Sequence[v2.Transform],
        seed: int,
        label_map: Sequence[int] | None,
        max_pixels: int,
        keep_size: bool = False,
    ) -> None:
        self.target = make_target_handler(spec, label_map)
        self.max_pixels = max_pixels
        self.keep_size = keep_size
        self.dataset = dataset
        self.spec = spec
        self.transforms = flatten_transforms(transforms)
        _check_shards(dataset, self.transforms)
        self.image_transforms = {
            transform for transform in self.transforms if _takes_one(transform)
        }
        self.seed = seed
        self.planner = make_planner(spec, self.transforms)
        self.resize_planner = make_planner(spec, ())
        """For images that are only resized."""

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Any, Sample] | UnreadableFile:
        """Read and transform a sample.

        Args:
            key: (epoch, index).

        Returns:
            Image, target and origin; or the file and the reason if it is unreadable.
        """
        epoch, index = key
        seed_all(self.seed, epoch, index)
        item = self.read(index, planner=None if self.keep_size else self.planner)
        if isinstance(item, UnreadableFile):
            return item
        image, target, plan = item.image, item.target, item.plan
        sample = Sample(index, item.path, item.size, self.target.content_size(image))
        for transform in self.transforms:
            if plan.parameters is not None and transform is self.planner.transform:
                image, target = apply_planned(transform, plan, image, target)
            elif isinstance(transform, MultiSampleTransform):
                image, target = self.target.resize(image, target)
                image, target = transform(image, target, self._read_random)
            elif transform in self.image_transforms:
                image = self._transform_image(transform, image)
            else:
                image, target = transform(image, target)
        if not self.keep_size and image.shape[-2:] != self.spec.image_size:
            image, target = self.target.resize(image, target)
        target = self.target.to_batch(target, is_training=bool(self.transforms))
        return image.as_subclass(Tensor), target, sample

    def _transform_image(self, transform: Any, image: tv_tensors.Image) -> tv_tensors.Image:
        """Apply a transform of the image alone, which must not move its pixels."""
        transformed = transform(image)
        is_moved = transformed.shape[-2:] != image.shape[-2:]
        if is_moved and self.spec.target_type in ("masks", "boxes"):
            raise ConfigurationError(
                f"{type(transform).__name__} changes the size of images but not of their "
                f"{self.spec.target_type}: its forward must take image and target and return both"
            )
        return tv_tensors.wrap(transformed, like=image)

    def read(
        self,
        index: int,
        *,
        planner: ReductionPlanner | None = None,
    ) -> DecodedSample | UnreadableFile:
        """Read a sample without transforms.

        Args:
            index: index of the sample.
            planner: plans how far the image is reduced; None for its original size.

        Returns:
            The sample; or the file and the reason if it is unreadable.

        Raises:
            DataError: if the storage of the sample cannot be reached, which is never skipped.
        """
        try:
            source, target = self.dataset[index]
        except UnreadableFileError as error:
            return error.unreadable
        if isinstance(source, CachedImage):
            return self._read_cached(index, source, target)
        path = find_path(source)
        try:
            image, size, plan = self._decode(source, planner)
            return DecodedSample(
                tv_tensors.Image(image), self.target(target, size), path, size, plan
            )
        except InvalidImageError as error:
            return UnreadableFile(path or f"sample {index}", str(error))

    def _read_cached(
        self, index: int, source: CachedImage, target: Any
    ) -> DecodedSample | UnreadableFile:
        """Bring the target of a cached image to its size; masks have it already."""
        image = tv_tensors.Image(source.pixels)
        size = (image.shape[-2], image.shape[-1])
        has_masks = self.spec.target_type == "masks"
        try:
            target = self.target(target, size if has_masks else source.size)
        except InvalidImageError as error:
            return UnreadableFile(source.path or f"sample {index}", str(error))
        if self.spec.target_type == "boxes":
            target["boxes"] = v2.functional.resize(target["boxes"], list(size))
        return DecodedSample(image, target, source.path, source.size, Plan())

    def _decode(
        self, source: Any, planner: ReductionPlanner | None
    ) -> tuple[Tensor, tuple[int, int], Plan]:
        """Decode an image.

        Args:
            source: its path, its file, or the image itself.
            planner: plans how far it is reduced; None for its original size.

        Returns:
            The image, the (height, width) of the original, and how it was decoded.
        """
        channels, plan = self.spec.channels, Plan()
        file = open_source(source, max_pixels=self.max_pixels)
        if file is None:
            image = to_uint8_image(source, channels=channels, max_pixels=self.max_pixels)
            return image, (image.shape[-2], image.shape[-1]), plan
        if planner is not None and file.size is not None:
            plan = planner.plan(file.size)
        image = file.decode(channels=channels, reduction=plan.reduction)
        size = file.size or (image.shape[-2], image.shape[-1])
        return image, size, plan

    def _read_random(self, count: int) -> list[tuple[tv_tensors.Image, Any]]:
        """Read and resize random samples, without unreadable ones, which are reported elsewhere."""
        samples = []
        for index in torch.randint(len(self), (count,)).tolist():
            item = self.read(index, planner=self.resize_planner)
            if not isinstance(item, UnreadableFile):
                samples.append(self.target.resize(item.image, item.target))
        return samples


def _check_shards(dataset: Dataset, transforms: Sequence[v2.Transform]) -> None:
    """Check that transforms that read other samples do not need more shards than there are at once.

    Raises:
        ConfigurationError: if they do.
    """
    shard_of = get_shards(dataset)
    if shard_of is None:
        return
    num_shards, window = len(shard_of.unique()), get_window(dataset)
    for transform in transforms:
        if isinstance(transform, MultiSampleTransform) and num_shards > window:
            raise ConfigurationError(
                f"{type(transform).__name__} combines images of all {num_shards} shards, but "
                f"data.shuffle_window={window}: type data.shuffle_window={num_shards}, or another "
                "augment"
            )


def _takes_one(transform: Any) -> bool:
    """Return whether a transform is a function of the image alone, as a module often is."""
    function = transform.forward if isinstance(transform, nn.Module) else transform
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return False
    return sum(parameter.kind in positional for parameter in parameters) == 1


def init_worker(_: int) -> None:
    """Initialize a DataLoader worker: signals are handled by the process that has started it."""
    signals.ignore_signals_in_worker()


def collate(items: Sequence[tuple[Tensor, Any, Sample] | UnreadableFile]) -> Batch:
    """Combine readable samples to a batch, and list the unreadable files in it.

    Args:
        items: items of a ``TransformedDataset``.
    """
    unreadable = []
    for item in items:
        if isinstance(item, UnreadableFile):
            unreadable.append(item)
    readable = []
    for item in items:
        if not isinstance(item, UnreadableFile):
            readable.append(item)
    if not readable:
        images = torch.empty(0, dtype=torch.uint8)
        return Batch(images, torch.empty(0, dtype=torch.int64), [], unreadable)
    image_tuple, targets, samples = zip(*readable, strict=True)
    has_boxes = isinstance(targets[0], BoxTargets)
    batch_targets = list(targets) if has_boxes else _stack(targets)
    return Batch(_stack(image_tuple), batch_targets, samples, unreadable)


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors; in a worker directly into memory that it shares with the main process."""
    if get_worker_info() is None:
        return torch.stack(tensors)  # type: ignore[arg-type]
    first = tensors[0]
    shape = (len(tensors), *first.shape)
    num_bytes = len(tensors) * first.numel() * first.element_size()
    storage = torch.UntypedStorage._new_shared(num_bytes)
    batch = torch.empty(0, dtype=first.dtype).set_(storage, 0, shape)  # type: ignore[call-overload]
    return torch.stack(tensors, out=batch)  # type: ignore[arg-type]
