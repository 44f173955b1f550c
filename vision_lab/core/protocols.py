"""Interfaces between datasets, models, heads and tasks.

Torch is imported for type checking only, so that importing this module is fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from vision_lab.core.batch import BoxTargets, Detections
from vision_lab.core.spec import DataSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


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
class LoadedWeights:
    """What became of learnt weights.

    Attributes:
        sentence: one line for the user.
        fresh: parameters that keep their random first values.
        mean: what the weights want subtracted, one number a channel; None where they do not say.
        std: what they want divided by.
    """

    summary: str
    missing_keys: tuple[str, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class Backbone(Protocol):
    """A classifier seen as multi-scale features."""

    @property
    def network(self) -> nn.Module:
        """The whole network of the paper: (N, C, H, W) -> (N, num_classes) logits."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Its maps from the finest to the coarsest."""

    @property
    def loaded(self) -> LoadedWeights | None:
        """What became of learnt weights; None where there are none."""

    def features(self, names: Sequence[str], *, output_stride: int | None = None) -> nn.Module:
        """A module (N, C, H, W) -> {name: (N, channels, H / stride, W / stride)}; keys stay the classifier's.

        No map's stride is larger than ``output_stride``: those that would be are dilated instead.
        """


class Detector(Protocol):
    """A network that finds objects: one pass gives what both its losses and its detections are made of."""

    def __call__(self, images: Tensor) -> Any:
        """(N, C, H, W) normalised pictures -> outputs, whatever they are."""

    def losses(self, outputs: Any, targets: Sequence[BoxTargets]) -> dict[str, Tensor]:
        """Scalars, to be added up; crowds are for the head to leave out."""

    def decode(self, outputs: Any) -> list[Detections]:
        """What was found in each picture, in its pixels."""


class GanNetworks(Protocol):
    """A pair of networks: one makes pictures of noise, the other tells them from real ones. It is a module of both."""

    @property
    def latent_dim(self) -> int:
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
    def loaded(self) -> LoadedWeights | None:
        """What became of learnt weights; None where there are none."""


Head = Callable[[Any, DataSpec], "nn.Module"]
"""What a task puts on a ``Backbone`` (or on a pair, which it leaves as it is); it owns the attribute names of the
network it returns."""
