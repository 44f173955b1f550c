"""Interfaces between datasets, models, heads and tasks.

Torch is imported for type checking only, so that importing this module is fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from vision_lab.core.batch import Batch, BoxTargets, Detections
from vision_lab.core.spec import DataSpec, Split

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Dataset(Protocol):
    """A map-style dataset of (image, target).

    The image is a path, a PIL image, a NumPy array (H, W) or (H, W, C), or a tensor (C, H, W), with
    8 bits per channel. The target is one of

    - a class index;
    - a mask (H, W) of class indices, as an array or tensor, with 255 for pixels to ignore;
    - a mapping with ``boxes`` (n, 4), (x1, y1, x2, y2) in pixels of the image, ``labels`` (n,) and
      optionally ``crowd``, ``difficult`` and ``area`` (see ``BoxTargets``); with
      ``relative: True``, boxes are fractions of the image's width and height;
    - None if it is unknown.

    A dataset may raise ``UnreadableFileError`` for a sample that cannot be read, and may list
    problems of its annotations in an attribute ``issues``.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


class TrainingData(Protocol):
    """What a task may ask of the data it is trained on."""

    @property
    def splits(self) -> Mapping[Split, Sized]:
        """The samples of each split."""

    def class_weights(self) -> Tensor:
        """Compute weights of the classes from the training split, (num_classes,) float."""

    def eval_loader(
        self,
        split: Split,
        *,
        max_samples: int | None = None,
    ) -> Iterable[Batch]:
        """Load a split without augmentation, or at most a number of evenly spaced samples."""

    def load_images(
        self, split: Split, indices: Sequence[int], *, max_samples: int | None = None
    ) -> list[Tensor]:
        """Load images of a split, (C, H, W) uint8, or of the subset that ``eval_loader`` yields."""

    def record_unreadable(self, batch: Batch) -> None:
        """Record the unreadable files of a batch."""


class HeatMaps(Protocol):
    """Shows the image regions that support a class."""

    @property
    def layer(self) -> str | None:
        """Name of the layer that is shown; None if the network has none that can be."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute a map of each image, (N, H, W) in [0, 1].

        Args:
            images: (N, C, H, W) uint8.
            labels: (N,) int64, the class of each map.
        """


class Stage(NamedTuple):
    """The last feature map of a backbone at one resolution."""

    name: str
    """Name of the submodule that computes it."""
    channels: int
    stride: int
    """Image pixels per pixel of the feature map."""


@dataclass(frozen=True)
class LoadedWeights:
    """The result of loading pretrained weights into a network.

    Attributes:
        summary: one line to print.
        missing_keys: parameters that keep their random initial values.
        mean: per-channel mean that the weights expect images to be normalized with; None if
            unknown.
        std: per-channel standard deviation that the weights expect; None if unknown.
    """

    summary: str
    missing_keys: tuple[str, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class Backbone(Protocol):
    """A classification network, with access to its multi-scale feature maps."""

    @property
    def network(self) -> nn.Module:
        """The complete classifier, (N, C, H, W) -> (N, num_classes) logits."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The feature maps, from the finest to the coarsest."""

    @property
    def loaded(self) -> LoadedWeights | None:
        """The result of loading pretrained weights; None for random initialization."""

    def features(
        self,
        names: Sequence[str],
        *,
        output_stride: int | None = None,
    ) -> nn.Module:
        """Build a module that returns feature maps.

        Args:
            names: names of the stages to return.
            output_stride: maximum stride; strides beyond it are replaced by dilation.

        Returns:
            A module (N, C, H, W) -> {name: (N, channels, H / stride, W / stride)}. The keys of its
            state dict are those of the classifier.
        """


class Detector(Protocol):
    """A detection network that computes losses and detections from the same outputs."""

    def __call__(self, images: Tensor) -> Any:
        """Map (N, C, H, W) normalized images to outputs of any type."""

    def losses(
        self,
        outputs: Any,
        targets: Sequence[BoxTargets],
    ) -> dict[str, Tensor]:
        """Compute scalar losses by name, to be summed. The head must ignore crowds."""

    def decode(self, outputs: Any) -> list[Detections]:
        """Compute the detections of each image, in pixels of the batch images."""


class FittedDetector(Protocol):
    """A detection network that learns in rounds of its own, without gradients."""

    @property
    def num_rounds(self) -> int:
        """Number of rounds."""

    @property
    def calibration_fraction(self) -> float:
        """Fraction of the training images that are held out for ``calibrate``."""

    def prepare(self, targets: Iterable[BoxTargets]) -> None:
        """Set what depends on the sizes of all objects, before the first round."""

    def collect(
        self, image: Tensor, target: BoxTargets, *, round_index: int, generator: torch.Generator
    ) -> None:
        """Collect examples from a training image, (C, H, W) uint8."""

    def fit(self) -> dict[str, Tensor]:
        """Fit the detector to the examples of a round, and return scalars to log by name."""

    def calibrate(self, samples: Sequence[tuple[Tensor, BoxTargets]]) -> None:
        """Fit what maps scores to probabilities, by images that were held out."""

    def fit_state(self) -> dict[str, Tensor]:
        """Return what the next round requires besides the parameters."""

    def load_fit_state(self, state: dict[str, Tensor]) -> None:
        """Restore what ``fit_state`` has returned."""

    def decode(self, outputs: Any) -> list[Detections]:
        """Compute the detections of each image, in pixels of the batch images."""


class FeatureExtractor(Protocol):
    """A frozen network in whose features images are compared."""

    @property
    def name(self) -> str:
        """Name to report with metrics: values of different extractors cannot be compared."""

    def __call__(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W), uint8 or float in [0, 1], of any size to features (N, D)."""


class Reconstruction(NamedTuple):
    """Outputs of an autoencoder.

    Attributes:
        logits: (N, C, H, W); the reconstructed image is their sigmoid, in [0, 1].
        mean: (N, latent_dim) codes; of a variational autoencoder, the means of their distributions.
        log_variance: (N, latent_dim) logarithms of the variances; None for a plain autoencoder.
    """

    logits: Tensor
    mean: Tensor
    log_variance: Tensor | None


class AutoencoderNetwork(Protocol):
    """An encoder and a decoder, as one module."""

    @property
    def latent_dim(self) -> int:
        """Length of a code."""

    @property
    def is_variational(self) -> bool:
        """Whether the encoder predicts distributions of codes (Kingma 2013)."""

    @property
    def decoder(self) -> nn.Module:
        """Maps codes (N, latent_dim) to logits of images (N, C, H, W)."""

    @property
    def loaded(self) -> LoadedWeights | None:
        """The result of loading pretrained weights; None for random initialization."""

    def __call__(self, images: Tensor) -> Reconstruction:
        """Reconstruct normalized images, (N, C, H, W)."""


class GanNetworks(Protocol):
    """A generator and a discriminator, as one module."""

    @property
    def latent_dim(self) -> int:
        """Number of standard normal latent variables per image."""

    @property
    def conditional(self) -> bool:
        """Whether both networks are conditioned on class labels."""

    @property
    def generator(self) -> nn.Module:
        """Maps (N, latent_dim) and (N,) labels or None to (N, C, H, W) images in [-1, 1]."""

    @property
    def discriminator(self) -> nn.Module:
        """Maps (N, C, H, W) images in [-1, 1] and (N,) labels or None to (N,) scores.

        Real images have higher scores.
        """

    @property
    def loaded(self) -> LoadedWeights | None:
        """The result of loading pretrained weights; None for random initialization."""


Head = Callable[[Any, DataSpec], "nn.Module"]
"""Builds the task's network from a ``Backbone`` (or ``GanNetworks``, returned unchanged). The head
owns the attribute names of the network it returns."""
