"""The words every part may use: what data says of itself, what a batch is, what a backbone and a head promise.

Torch is imported for the type checker only, so that the command line can read this file in a blink.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol, Self

from vision_lab.core.arguments import Count, Hint, Positive, Range

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Target = Literal["labels", "masks", "boxes", "none"]
Split = Literal["train", "val", "test", "predict"]

IGNORE = 255
"""The value of a mask's pixels that are neither learnt from nor measured."""


MAX_CLASSES = 100_000
"""More than any data set has by far; a number beyond it is a mistake, or meant to fill the memory."""

MAX_CHANNELS = 1024


class UserError(Exception):
    """Something its user can mend: shown as its text alone, without a traceback."""


class ConfigurationError(UserError):
    """What was asked for cannot work: says what came, what is needed, what to type."""


class DataError(UserError):
    """A data set or a picture cannot be used: names the files."""


def some(names: Sequence[str], most: int) -> str:
    """The first of many names, and how many more there are, for an error."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def number(key: str, value: Any, *, least: float = 0.0) -> float:
    """A finite number as a user typed it.

    Raises:
        ConfigurationError: where it is none, or less than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < inf:
        raise ConfigurationError(f"{key}={value}: type a number of {least:g} or more")
    return float(value)


def whole_number(key: str, value: Any, *, least: int = 1, multiple_of: int = 1) -> int:
    """A whole number as a user typed it.

    Raises:
        ConfigurationError: where it is none, less than ``least``, or no multiple of ``multiple_of``.
    """
    if type(value) is not int or value < least:
        raise ConfigurationError(f"{key}={value}: type a whole number of {least} or more")
    if value % multiple_of:
        raise ConfigurationError(f"{key}={value}: type a multiple of {multiple_of}")
    return value


def whole_numbers(key: str, values: Any) -> list[int]:
    """A list of whole numbers of 1 or more as a user typed it, not empty.

    Raises:
        ConfigurationError: where it is none, or holds anything else.
    """
    listed = isinstance(values, Sequence) and not isinstance(values, str)
    if not listed or not values or any(type(value) is not int or value < 1 for value in values):
        shown = list(values) if listed else values
        raise ConfigurationError(f"{key}={shown}: type a list of whole numbers of 1 or more")
    return list(values)


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What the other parts may know of the data.

    Attributes:
        target: what comes with a picture.
        class_names: one name a class, in the order of the labels.
        num_classes: how many there are.
        image_size: (height, width) in pixels of the pictures in a batch.
        channels: 1 for grey, 3 for colour, any other number for tensors of one's own.
        mean: one number a channel, of pictures in [0, 1].
        std: likewise.
    """

    target: Target
    class_names: Annotated[tuple[str, ...], Hint('a list of names, numbers in quotes: [cat,dog,"1"]')]
    num_classes: Annotated[int, Range(least=0, most=MAX_CLASSES)]
    image_size: Annotated[tuple[Count, Count], Hint("[height,width] in pixels")]
    channels: Annotated[int, Range(least=1, most=MAX_CHANNELS)]
    mean: Annotated[tuple[float, ...], Hint("a list of numbers, one for each channel or one for all")]
    std: Annotated[tuple[Positive, ...], Hint("a list of numbers above 0, one for each channel or one for all")]

    def __post_init__(self) -> None:
        errors = []
        names: object = self.class_names
        if isinstance(names, str):  # which would count as a list of letters
            raise ConfigurationError(f"data.spec.class_names={names}: type a list, [{names},...]")
        twice = [name for name, count in Counter(self.class_names).items() if count > 1]
        if twice:
            errors.append(f"data.spec.class_names has {', '.join(map(str, twice))} more than once: classes go by names")
        if len(self.class_names) != self.num_classes:
            names = len(self.class_names)
            errors.append(f"data.spec.num_classes={self.num_classes}, but data.spec.class_names has {names}")
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            errors.append(f"data.spec.image_size={list(self.image_size)}: type [height,width] in pixels")
        if self.channels < 1:
            errors.append(f"data.spec.channels={self.channels}: type 1 for grey or 3 for colour")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                errors.append(
                    f"data.spec.{name} has {len(values)} numbers for {self.channels} channels: type one number, "
                    "or one for each channel"
                )
        if self.target == "masks" and self.num_classes > IGNORE:
            errors.append(f"data.spec.class_names has {self.num_classes} names: masks hold {IGNORE} classes at most")
        if min(self.std, default=1) <= 0:
            errors.append(f"data.spec.std={list(self.std)}: type numbers above 0")
        if errors:
            raise ConfigurationError("\n".join(errors))

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Self:
        """Made of plain lists and numbers, as a YAML file holds them."""
        plain: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in values.items()}
        try:
            return cls(**plain)
        except TypeError as error:
            raise ConfigurationError(f"data.spec: {error}") from error


@dataclass(frozen=True, slots=True)
class Sample:
    """Where a picture of a batch comes from."""

    index: int
    """Its place in the split."""
    path: str | None
    """Its file, where it has one."""
    size: tuple[int, int]
    """(height, width) in pixels of the file, before any resizing."""
    shown: tuple[int, int] | None = None
    """(height, width) in pixels of the part of the batch's picture, from its top left, that holds the file's whole
    picture; None where it is not known."""


class Unreadable(NamedTuple):
    """A file that should hold a picture or its target and does not."""

    path: str
    reason: str


class Fault(NamedTuple):
    """What is wrong with a picture's annotation, and what was done about it."""

    path: str
    """The picture."""
    source: str
    """The file that says it."""
    what: str


class UnreadableError(Exception):
    """A file that should hold a picture or its target and does not.

    Args:
        path: which.
        reason: why.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.unreadable = Unreadable(path, reason)


@dataclass(frozen=True)
class Objects:
    """What is to be found in one picture, a row for each object.

    Attributes:
        boxes: (n, 4) float32, left, top, right and bottom in pixels of the batch's picture.
        labels: (n,) int64 from 0.
        crowd: (n,) bool: a region of many objects, or one too well hidden: not learnt, and what is found there is no
            mistake.
        difficult: (n,) bool: learnt, but measured like a crowd.
        area: (n,) float32 in pixels of the file, which says whether it counts as small, medium or large.
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    difficult: Tensor
    area: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> Objects:
        """Some of the rows, all columns together."""
        return self._each(lambda column: column[rows])

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Objects:
        """The same on another device."""
        return self._each(lambda column: column.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Objects:
        """The same in page-locked memory."""
        return self._each(lambda column: column.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Objects:
        columns = {name: change(column) for name, column in vars(self).items()}
        return replace(self, **columns)


@dataclass(frozen=True)
class Detections:
    """What was found in one picture, a row for each object, the surest first.

    Attributes:
        boxes: (n, 4) float32, left, top, right and bottom in pixels.
        labels: (n,) int64 from 0.
        scores: (n,) float32 in [0, 1].
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> Detections:
        """Some of the rows, all columns together."""
        return Detections(self.boxes[rows], self.labels[rows], self.scores[rows])


def fitted(size: tuple[int, int], into: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a picture of ``size`` made as large as fits ``into``, its shape kept."""
    scale = min(into[0] / size[0], into[1] / size[1])
    return max(1, min(round(size[0] * scale), into[0])), max(1, min(round(size[1] * scale), into[1]))


@dataclass
class Batch:
    """What a loader yields and a task's step takes.

    Attributes:
        images: (N, C, H, W) uint8.
        targets: (N,) int64 labels, -1 where they are not known; or (N, H, W) uint8 masks of classes, 255 where they
            are not known or not to be counted; or N ``Objects``.
        samples: N origins.
        unreadable: the files left out of this batch.
    """

    images: Tensor
    targets: Any
    samples: Sequence[Sample]
    unreadable: Sequence[Unreadable] = ()

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            targets=_each(self.targets, lambda target: target.to(device, non_blocking=non_blocking)),
        )

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which a copy to a GPU need not wait. Called by the DataLoader."""
        targets = _each(self.targets, lambda target: target.pin_memory())
        return replace(self, images=self.images.pin_memory(), targets=targets)


def _each(targets: Any, change: Callable[[Any], Any]) -> Any:
    """Targets changed: one tensor, or a list with one for each picture."""
    return [change(target) for target in targets] if isinstance(targets, list) else change(targets)


class Dataset(Protocol):
    """Any map-style data set: a picture and its target.

    The picture is a path, a PIL image, a NumPy array (H, W) or (H, W, C), or a tensor (C, H, W), 8 bits a channel. The
    target is a label; or a mask (H, W) of classes as an array or a tensor, with 255 for pixels that do not count; or a
    mapping with ``boxes`` (n, 4), left, top, right and bottom in pixels of the picture, ``labels`` (n,) and, where they
    are known, ``crowd``, ``difficult`` and ``area`` (see ``Objects``); with ``relative: True`` boxes are in parts of
    the picture's width and height. None where it is not known. ``UnreadableError`` may be raised for a sample that
    cannot be had. What was wrong with annotations a data set may tell by ``faults``.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


class Stage(NamedTuple):
    """One of a backbone's maps, the last of its size."""

    name: str
    """The module that makes it."""
    channels: int
    stride: int
    """Picture pixels per map pixel."""


@dataclass(frozen=True)
class Loaded:
    """What became of learnt weights.

    Attributes:
        sentence: one line for the user.
        fresh: parameters that keep their random first values.
        mean: what the weights want subtracted, one number a channel; None where they do not say.
        std: what they want divided by.
    """

    sentence: str
    fresh: tuple[str, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class Backbone(Protocol):
    """A classifier seen as multi-scale features."""

    @property
    def classifier(self) -> nn.Module:
        """The whole network of the paper: (N, C, H, W) -> (N, num_classes) logits."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Its maps from the finest to the coarsest."""

    @property
    def loaded(self) -> Loaded | None:
        """What became of learnt weights; None where there are none."""

    def features(self, names: Sequence[str], *, output_stride: int | None = None) -> nn.Module:
        """A module (N, C, H, W) -> {name: (N, channels, H / stride, W / stride)}; keys stay the classifier's.

        No map's stride is larger than ``output_stride``: those that would be are dilated instead.
        """


class Detector(Protocol):
    """A network that finds objects: one pass gives what both its losses and its detections are made of."""

    def __call__(self, images: Tensor) -> Any:
        """(N, C, H, W) normalised pictures -> outputs, whatever they are."""

    def losses(self, outputs: Any, targets: Sequence[Objects]) -> dict[str, Tensor]:
        """Scalars, to be added up; crowds are for the head to leave out."""

    def decode(self, outputs: Any) -> list[Detections]:
        """What was found in each picture, in its pixels."""


class Adversarial(Protocol):
    """A pair of networks: one makes pictures of noise, the other tells them from real ones. It is a module of both."""

    @property
    def latent(self) -> int:
        """Numbers that a picture is made of, drawn from the standard normal distribution."""

    @property
    def conditional(self) -> bool:
        """Whether both take the class of each picture."""

    @property
    def generator(self) -> nn.Module:
        """(N, latent), and (N,) labels or None -> (N, C, H, W) pictures in [-1, 1]."""

    @property
    def discriminator(self) -> nn.Module:
        """(N, C, H, W) pictures in [-1, 1], and (N,) labels or None -> (N,) scores, those of real ones higher."""

    @property
    def loaded(self) -> Loaded | None:
        """What became of learnt weights; None where there are none."""


Head = Callable[[Any, DataSpec], "nn.Module"]
"""What a task puts on a ``Backbone`` (or on a pair, which it leaves as it is); it owns the attribute names of the
network it returns."""
