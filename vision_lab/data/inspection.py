"""Inspection of a dataset: what it contains, and which samples have problems."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vision_lab.core.errors import AnnotationIssue, DataError, UnreadableFile
from vision_lab.core.spec import IGNORE_INDEX, UNKNOWN_LABEL, DataSpec
from vision_lab.data.suspicions import (
    find_suspicious_boxes,
    find_suspicious_classes,
    find_suspicious_sizes,
)
from vision_lab.data.transformed_dataset import TransformedDataset, init_worker


@dataclass(frozen=True)
class SampleReport:
    """What a dataset contains at one index.

    Attributes:
        split: split of the sample.
        index: index in the split.
        name: path of the file, or split and index.
        problem: why the sample cannot be used; the other fields are then empty.
        size: (height, width) in pixels.
        digest: hash of the pixels; equal for identical images.
        counts: by label, the number of objects or of mask pixels; for class labels 1.
        num_small: number of objects that are likely too small to be learned.
        suspicions: what is valid in it, but likely a mistake.
    """

    split: str
    index: int
    name: str
    problem: str | None = None
    size: tuple[int, int] = (0, 0)
    digest: str = ""
    counts: Mapping[int, int] | None = None
    num_small: int = 0
    suspicions: Sequence[str] = ()


class DatasetInspection(torch.utils.data.Dataset[SampleReport]):
    """Reads each sample of a split as training does, and yields a report instead.

    Args:
        split: name of the split.
        dataset: the samples.
        spec: spec of the data.
        small_object_pixels: an object counts as small if its shorter side has fewer pixels, in an
            image resized to ``spec.image_size``.
    """

    def __init__(
        self, split: str, dataset: TransformedDataset, spec: DataSpec, *, small_object_pixels: int
    ) -> None:
        self.split = split
        self.dataset = dataset
        self.spec = spec
        self.small_object_pixels = small_object_pixels

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> SampleReport:
        try:
            item = self.dataset.read(index)
        except DataError as error:  # of its storage: the next sample may be intact
            return SampleReport(self.split, index, f"{self.split} {index}", problem=str(error))
        if isinstance(item, UnreadableFile):
            return SampleReport(self.split, index, item.path, problem=item.reason)
        image, target, path = item.image, item.target, item.path
        digest = blake2b(image.contiguous().numpy().tobytes(), digest_size=16)
        digest.update(str(tuple(image.shape)).encode())
        height, width = image.shape[-2:]
        scale = min(self.spec.image_size[0] / height, self.spec.image_size[1] / width)
        return SampleReport(
            self.split,
            index,
            path or f"{self.split} {index}",
            size=(height, width),
            digest=digest.hexdigest(),
            counts=self._count_labels(target),
            num_small=self._count_small(target, scale),
            suspicions=self._find_suspicions(target, (height, width)),
        )

    def _find_suspicions(self, target: Any, size: tuple[int, int]) -> list[str]:
        if self.spec.target_type != "boxes":
            return []
        boxes = target["boxes"].as_subclass(Tensor)
        return find_suspicious_boxes(boxes, target["labels"], size, self.spec.class_names)

    def _count_labels(self, target: Any) -> dict[int, int]:
        if self.spec.target_type == "boxes":
            return dict(Counter(target["labels"][~target["crowd"]].tolist()))
        values, counts = target.as_subclass(Tensor).flatten().unique(return_counts=True)
        label_counts = dict(zip(values.tolist(), counts.tolist(), strict=True))
        label_counts.pop(IGNORE_INDEX if self.spec.target_type == "masks" else UNKNOWN_LABEL, None)
        return label_counts

    def _count_small(
        self,
        target: Any,
        scale: float,
    ) -> int:
        if self.spec.target_type != "boxes":
            return 0
        boxes = target["boxes"].as_subclass(Tensor)
        shorter_sides = (boxes[:, 2:] - boxes[:, :2]).amin(dim=1) * scale
        return int((shorter_sides < self.small_object_pixels).sum())


def inspect_samples(
    inspections: Iterable[DatasetInspection], *, num_workers: int
) -> Iterator[SampleReport]:
    """Inspect the samples of all splits in order.

    Args:
        inspections: dataset of reports of each split.
        num_workers: number of DataLoader workers.

    Yields:
        The report of each sample.
    """
    for inspection in inspections:
        yield from DataLoader(
            inspection, batch_size=None, num_workers=num_workers, worker_init_fn=init_worker
        )


def inspection_report(
    samples: Sequence[SampleReport],
    issues: Sequence[AnnotationIssue],
    spec: DataSpec,
    *,
    changed: Sequence[tuple[str, UnreadableFile]] = (),
) -> dict[str, Any]:
    """Summarize an inspection.

    Args:
        samples: reports of all samples.
        issues: invalid annotations found while the dataset was loaded.
        spec: spec of the data.
        changed: files with other content than expected, and the split of each.

    Returns:
        A report that can be written as JSON. ``num_problems`` counts what has to be fixed:
        unreadable files, invalid annotations, images in two splits (which bias the test), and
        duplicate images with different labels; ``num_suspicions`` what is valid, but likely a
        mistake.
    """
    splits: dict[str, list[SampleReport]] = defaultdict(list)
    for sample in samples:
        splits[sample.split].append(sample)
    across: list[list[SampleReport]] = []
    within: list[list[SampleReport]] = []
    for group in _find_duplicates(samples):
        is_within = len({sample.split for sample in group}) == 1
        (within if is_within else across).append(group)
    conflicting = []
    for group in within:
        if _has_different_labels(group):
            conflicting.append(group)
    unreadable = []
    for split, file in changed:
        unreadable.append({"split": split, **file._asdict()})
    for sample in samples:
        if sample.problem:
            unreadable.append(
                {
                    "split": sample.split,
                    "path": sample.name,
                    "reason": sample.problem,
                }
            )
    summaries = {name: _summarize_split(splits[name], spec) for name in splits}
    suspicious_samples = []
    for sample in samples:
        for reason in sample.suspicions:
            suspicious_samples.append(
                {"split": sample.split, "path": sample.name, "reason": reason}
            )
    suspicious_splits = find_suspicious_classes(summaries)
    suspicious_splits += find_suspicious_sizes(summaries, spec.image_size)
    return {
        "num_problems": len(unreadable) + len(issues) + len(across) + len(conflicting),
        "unreadable": unreadable,
        "annotation_issues": [issue._asdict() for issue in issues],
        "duplicates_across_splits": [_to_entries(group) for group in across],
        "conflicting_duplicates": [_to_entries(group) for group in conflicting],
        "duplicates_within_split": [_to_entries(group) for group in within],
        "num_suspicions": len(suspicious_samples) + len(suspicious_splits),
        "suspicious_samples": suspicious_samples,
        "suspicious_splits": suspicious_splits,
        "splits": summaries,
    }


def _summarize_split(samples: Sequence[SampleReport], spec: DataSpec) -> dict[str, Any]:
    readable = []
    for sample in samples:
        if not sample.problem:
            readable.append(sample)
    label_counts: Counter[int] = Counter()
    image_counts: Counter[int] = Counter()
    for sample in readable:
        label_counts.update(sample.counts or {})
        image_counts.update((sample.counts or {}).keys())
    sizes = sorted((sample.size for sample in readable), key=lambda size: size[0] * size[1])
    return {
        "num_images": len(samples),
        "sizes": {
            "smallest": list(sizes[0]) if sizes else None,
            "median": list(sizes[len(sizes) // 2]) if sizes else None,
            "largest": list(sizes[-1]) if sizes else None,
        },
        "classes": {
            name: {"count": label_counts[label], "num_images": image_counts[label]}
            for label, name in enumerate(spec.class_names)
        },
        "unlabeled": [sample.name for sample in readable if not sample.counts],
        "small_objects": {s.name: s.num_small for s in readable if s.num_small},
    }


def _find_duplicates(samples: Sequence[SampleReport]) -> list[list[SampleReport]]:
    """Return groups of two or more samples with identical pixels."""
    groups: dict[str, list[SampleReport]] = defaultdict(list)
    for sample in samples:
        if not sample.problem:
            groups[sample.digest].append(sample)
    repeated = []
    for group in groups.values():
        if len(group) > 1:
            repeated.append(group)
    return repeated


def _has_different_labels(group: Sequence[SampleReport]) -> bool:
    return any(sample.counts != group[0].counts for sample in group)


def _to_entries(group: Sequence[SampleReport]) -> list[dict[str, str]]:
    return [{"split": sample.split, "path": sample.name} for sample in group]
