"""A whole data set read sample by sample: what is in it, and what is wrong with it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vision_lab.core.errors import AnnotationIssue, UnreadableFile
from vision_lab.core.spec import IGNORE_INDEX, DataSpec
from vision_lab.data.transformed_dataset import TransformedDataset, init_worker


@dataclass(frozen=True)
class SampleReport:
    """What was seen of one sample.

    Attributes:
        split: where it is.
        index: its place there.
        name: its file, or its place.
        problem: why it cannot be used; then nothing else is known.
        size: (height, width) in pixels.
        digest: of its pixels: two samples with the same hold the same picture.
        counts: label: objects, or pixels of a mask; an image's own label counts once.
        tiny: objects too small to be learnt, most likely.
    """

    split: str
    index: int
    name: str
    problem: str | None = None
    size: tuple[int, int] = (0, 0)
    digest: str = ""
    counts: Mapping[int, int] | None = None
    num_small: int = 0


class DatasetInspection(torch.utils.data.Dataset[SampleReport]):
    """Reads each sample of a split, as training would, and tells of it."""

    def __init__(
        self, split: str, examples: TransformedDataset, spec: DataSpec, *, tiny: int
    ) -> None:
        self.split = split
        self.examples = examples
        self.spec = spec
        self.tiny = tiny

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> SampleReport:
        read = self.examples.read(index)
        if isinstance(read, UnreadableFile):
            return SampleReport(self.split, index, read.path, problem=read.reason)
        picture, target, path = read
        digest = blake2b(picture.contiguous().numpy().tobytes(), digest_size=16)
        digest.update(str(tuple(picture.shape)).encode())
        height, width = picture.shape[-2:]
        scale = min(
            side / own for side, own in zip(self.spec.image_size, (height, width), strict=True)
        )
        return SampleReport(
            self.split,
            index,
            path or f"{self.split} {index}",
            size=(height, width),
            digest=digest.hexdigest(),
            counts=self._counts(target),
            num_small=self._tiny(target, scale),
        )

    def _counts(self, target: Any) -> dict[int, int]:
        if self.spec.target_type == "boxes":
            return dict(Counter(target["labels"][~target["crowd"]].tolist()))
        values, counts = target.as_subclass(Tensor).flatten().unique(return_counts=True)
        unknown = IGNORE_INDEX if self.spec.target_type == "masks" else -1
        return {
            value: n
            for value, n in zip(values.tolist(), counts.tolist(), strict=True)
            if value != unknown
        }

    def _tiny(self, target: Any, scale: float) -> int:
        if self.spec.target_type != "boxes":
            return 0
        boxes = target["boxes"].as_subclass(Tensor)
        return int(((boxes[:, 2:] - boxes[:, :2]).amin(dim=1) * scale < self.tiny).sum())


def inspect_samples(
    examinations: Iterable[DatasetInspection], *, workers: int
) -> Iterator[SampleReport]:
    """All samples of all splits, in order, read ahead by so many processes."""
    for each in examinations:
        yield from DataLoader(
            each, batch_size=None, num_workers=workers, collate_fn=None, worker_init_fn=init_worker
        )


def inspection_report(
    found: Sequence[SampleReport], faults: Sequence[AnnotationIssue], spec: DataSpec
) -> dict[str, Any]:
    """All that was found, as JSON can hold it; ``broken`` counts what has to be mended.

    That is what cannot be read, broken annotations, pictures that are in two splits (a test that was learnt by heart is
    none), and those that are there twice with other labels.
    """
    splits: dict[str, list[SampleReport]] = defaultdict(list)
    for each in found:
        splits[each.split].append(each)
    alike = _duplicate_groups(found)
    across = [group for group in alike if len({each.split for each in group}) > 1]
    within = [group for group in alike if len({each.split for each in group}) == 1]
    contradicting = [
        group for group in within if any(each.counts != group[0].counts for each in group)
    ]
    unreadable = [each for each in found if each.problem]
    return {
        "broken": len(unreadable) + len(faults) + len(across) + len(contradicting),
        "unreadable": [
            {"split": each.split, "path": each.name, "reason": each.problem} for each in unreadable
        ],
        "broken_annotations": [fault._asdict() for fault in faults],
        "duplicates_across_splits": [_group_entries(group) for group in across],
        "contradicting_duplicates": [_group_entries(group) for group in contradicting],
        "duplicates_within_a_split": [_group_entries(group) for group in within],
        "splits": {name: _summary(each, spec) for name, each in splits.items()},
    }


def _summary(found: Sequence[SampleReport], spec: DataSpec) -> dict[str, Any]:
    read = [each for each in found if not each.problem]
    counts: Counter[int] = Counter()
    pictures: Counter[int] = Counter()
    for each in read:
        counts.update(each.counts or {})
        pictures.update((each.counts or {}).keys())
    sizes = sorted((each.size for each in read), key=lambda size: size[0] * size[1])
    return {
        "pictures": len(found),
        "sizes": {
            "smallest": list(sizes[0]) if sizes else None,
            "median": list(sizes[len(sizes) // 2]) if sizes else None,
            "largest": list(sizes[-1]) if sizes else None,
        },
        "classes": {
            name: {"count": counts[label], "pictures": pictures[label]}
            for label, name in enumerate(spec.class_names)
        },
        "without": [each.name for each in read if not each.counts],
        "tiny": {each.name: each.num_small for each in read if each.num_small},
    }


def _duplicate_groups(found: Sequence[SampleReport]) -> list[list[SampleReport]]:
    """Samples with the same pixels, by two and more."""
    groups: dict[str, list[SampleReport]] = defaultdict(list)
    for each in found:
        if not each.problem:
            groups[each.digest].append(each)
    return [group for group in groups.values() if len(group) > 1]


def _group_entries(group: Sequence[SampleReport]) -> list[dict[str, str]]:
    return [{"split": each.split, "path": each.name} for each in group]
