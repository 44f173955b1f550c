"""A cascade of boosted stumps on Haar features, for each class.

Viola, Jones: Rapid Object Detection using a Boosted Cascade of Simple Features, 2001.
https://doi.org/10.1109/CVPR.2001.990517

A stage of the cascade is trained on the objects and on the windows without object that pass all
stages before it. Unlike in the paper, the window of a class has the mean aspect ratio of its
objects, and positions and sizes of features are multiples of a step, so that there are thousands
of them instead of 180,000. OpenCV applies the cascade to images.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, log
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from vision_lab.core.arguments import ArgumentError, Fraction, Range
from vision_lab.core.batch import BoxTargets, Detections
from vision_lab.core.checking import check_arguments
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.extras import import_opencv
from vision_lab.core.protocols import LoadedWeights
from vision_lab.core.spec import DataSpec
from vision_lab.models.classic.boosting import fit_stage
from vision_lab.models.classic.cascade_file import (
    OPENCV_FILES,
    Cascade,
    read_opencv_cascade,
    to_opencv,
)
from vision_lab.models.classic.detector import (
    ClassicDetector,
    concatenate,
    log_ratios,
    overlaps_with_class,
    trained_objects,
)
from vision_lab.models.classic.haar_features import enumerate_features, haar_features, has_contrast
from vision_lab.models.classic.pixels import Pixels, crop_window, resize, to_pixels

CONTEXT = 0.1
"""Width of the surroundings on each side of an object, as a fraction of the window's side."""

MAX_SHIFT = 0.05
"""Maximum displacement of an object in its window, as a fraction of the window's side."""

MAX_LOG_SCALE = 0.07
"""Maximum of the logarithm of the scale of an object in its window."""

NEGATIVES_PER_IMAGE = 10
"""Maximum number of windows without object of each image and class that are collected."""

MAX_POSITIVES = 4000
"""Maximum number of windows with an object of a class that a stage is trained on."""

MAX_NEGATIVES = 2000
"""Maximum number of windows without object of a class that a stage is trained on."""

MIN_NEGATIVES = 50
"""Number of windows without object below which there is nothing left to learn from them."""

NEIGHBOR_IOU = 0.5
"""IoU from which two windows are detections of the same object."""

HALF_SCORE = 3.0
"""Sum of margins of windows at an object for which its score is 0.5 before calibration."""

MIN_MARGIN = 0.01
"""Lower bound of the margin of a window."""

MAX_WINDOWS = 500
"""Maximum number of windows of an image and class that are merged, those with largest margins."""


class Windows(NamedTuple):
    """Windows that pass all stages of a cascade.

    Attributes:
        boxes: (n, 4) in pixels of the image.
        margins: (n,) by how much their votes in the last stage exceed its threshold.
    """

    boxes: Tensor
    margins: Tensor


class HaarCascade(ClassicDetector):
    """Detects objects by cascades of boosted stumps.

    Args:
        spec: spec of the data.
        window_side: geometric mean of the height and width of a window in pixels.
        feature_step: step of positions and sizes of features in pixels.
        min_recall: fraction of the objects that each stage must let pass.
        max_false_positive_rate: fraction of the other windows at which a stage is complete.
        max_stumps: maximum number of stumps of a stage.
        min_neighbors: number of overlapping windows from which an object is detected; None for 1,
            or 5 with ``weights``.
        scale_factor: ratio of window sizes at which an image is searched.
        max_scale: factor by which images are enlarged, for objects smaller than a window.
        num_rounds: number of rounds, each of which trains a stage.
        nms_threshold: IoU above which non-maximum suppression drops the lower-scoring box of a
            class.
        calibration_fraction: fraction of the training images by which scores become probabilities;
            none with ``weights``.
        weights: ``opencv`` for the cascades that OpenCV comes with, which are not trained further;
            None to train.

    Raises:
        ConfigurationError: if OpenCV is not installed.
        ArgumentError: if OpenCV has no cascade for a class.
    """

    @check_arguments
    def __init__(
        self,
        spec: DataSpec,
        *,
        window_side: Annotated[int, Range(ge=8, le=128)] = 24,
        feature_step: Annotated[int, Range(ge=1, le=16)] = 3,
        min_recall: Fraction = 0.995,
        max_false_positive_rate: Fraction = 0.5,
        max_stumps: Annotated[int, Range(ge=1, le=1000)] = 50,
        min_neighbors: Annotated[int, Range(ge=1, le=1000)] | None = None,
        scale_factor: Annotated[float, Range(ge=1.01, le=2)] = 1.1,
        max_scale: Annotated[float, Range(ge=0.1, le=8)] = 1.0,
        num_rounds: Annotated[int, Range(ge=1, le=100)] = 10,
        nms_threshold: Fraction = 0.3,
        calibration_fraction: Fraction = 0.1,
        weights: Literal["opencv"] | None = None,
    ) -> None:
        super().__init__(
            spec,
            num_rounds=num_rounds,
            nms_threshold=nms_threshold,
            calibration_fraction=0.0 if weights else calibration_fraction,
            uncalibrated=(1.0, -log(HALF_SCORE)),
        )
        import_opencv("this model")  # fails before training
        self.window_side = window_side
        self.feature_step = feature_step
        self.min_recall = min_recall
        self.max_false_positive_rate = max_false_positive_rate
        self.max_stumps = max_stumps
        self.min_neighbors = min_neighbors or (5 if weights else 1)
        self.scale_factor = scale_factor
        self.max_scale = max_scale
        self.is_pretrained = weights is not None
        self.positives: list[list[Pixels]] = [[] for _ in range(spec.num_classes)]
        """The objects of each class that were collected in this round."""
        self.negatives: list[list[Pixels]] = [[] for _ in range(spec.num_classes)]
        """Windows without such an object of this round."""
        for label, name in enumerate(spec.class_names):
            if weights is not None:
                self._set_cascade(label, _read_published(name, weights))
            else:
                self._set_cascade(label, _empty_cascade(window_side, window_side))
        if weights is not None:
            self.num_rounds = 1
            self.loaded = LoadedWeights("cascades that OpenCV comes with", ())

    def prepare(self, targets: Iterable[BoxTargets]) -> None:
        """Set the window of each class by the mean aspect ratio of its objects."""
        if self.is_pretrained:
            return
        for label, ratios in enumerate(log_ratios(targets, self.spec)):
            ratio = exp(float(ratios.mean()))
            height = max(4, round(self.window_side / ratio**0.5))
            width = max(4, round(self.window_side * ratio**0.5))
            if not len(enumerate_features(height, width, step=self.feature_step)):
                name = self.spec.class_names[label]
                raise ConfigurationError(
                    f"model.feature_step={self.feature_step} leaves no features: windows of "
                    f"{name} have {height} x {width} pixels; type a smaller step"
                )
            self._set_cascade(label, _empty_cascade(height, width))

    def collect(
        self,
        image: Tensor,
        target: BoxTargets,
        *,
        round_index: int,  # noqa: ARG002 - the stages are the state
        generator: torch.Generator,
    ) -> None:
        """Collect objects, and windows without object that pass all stages so far."""
        if self.is_pretrained:
            return
        pixels = _to_gray(image)
        boxes, labels = trained_objects(target)
        for label in range(self.spec.num_classes):
            size = self._size(label)
            for box, own in zip(boxes, labels, strict=True):
                if own == label:
                    window = _with_context(box)
                    for shown in (window, _jitter(window, generator)):
                        crop = crop_window(pixels, shown, size)
                        self.positives[label] += [crop, crop[:, ::-1]]
            if not len(self.get_parameter(f"stages{label}")):
                windows = _random_windows(pixels, size, self.max_scale, generator)
            else:
                windows = self._passing_windows(pixels, label).boxes
            windows = windows[~overlaps_with_class(_without_context(windows), target, label)]
            chosen = torch.randperm(len(windows), generator=generator)[:NEGATIVES_PER_IMAGE]
            for window in windows[chosen]:
                self.negatives[label].append(crop_window(pixels, window, size))

    def fit(self) -> dict[str, Tensor]:
        """Train a stage for each class."""
        if self.is_pretrained:
            return {}
        counts = [len(windows) for windows in self.negatives]
        for label in range(self.spec.num_classes):
            if self.positives[label] and len(self.negatives[label]) >= MIN_NEGATIVES:
                self._add_stage(label)
            self.positives[label], self.negatives[label] = [], []
        return {"negatives": torch.tensor(float(sum(counts)))}

    def fit_state(self) -> dict[str, Tensor]:
        """Return nothing: each round collects its own examples."""
        return {}

    def load_fit_state(self, state: dict[str, Tensor]) -> None:
        """Do nothing, see ``fit_state``."""

    def detect(self, image: Tensor) -> Detections:
        """Detect objects in an image, before non-maximum suppression."""
        pixels = _to_gray(image)
        found = []
        for label in range(self.spec.num_classes):
            boxes, margins = self._passing_windows(pixels, label)
            objects = boxes if self.is_pretrained else _without_context(boxes)
            found.append(merge(objects, margins, label, min_neighbors=self.min_neighbors))
        return concatenate(found)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out OpenCV's classifiers, which cannot be copied and are built when needed."""
        return {**self.__dict__, "_classifiers": {}}

    def cascade(self, label: int) -> Cascade:
        """Return the cascade of a class."""
        return Cascade(*(self.get_parameter(f"{name}{label}") for name in Cascade._fields))

    def set_parameter(self, name: str, value: Tensor) -> None:
        super().set_parameter(name, value)
        self._classifiers: dict[int, Any] = {}

    def _set_cascade(self, label: int, cascade: Cascade) -> None:
        for name, value in cascade._asdict().items():
            self.set_parameter(f"{name}{label}", value)

    def _size(self, label: int) -> tuple[int, int]:
        """Return the height and width of the window of a class."""
        height, width = self.get_parameter(f"size{label}").int().tolist()
        return height, width

    def _passing_windows(self, pixels: Pixels, label: int) -> Windows:
        """Return the windows that pass all stages."""
        stages = self.get_parameter(f"stages{label}")
        if not len(stages):
            return Windows(torch.zeros(0, 4), torch.zeros(0))
        if label not in self._classifiers:
            self._classifiers[label] = to_opencv(self.cascade(label))
        height, width = pixels.shape
        size = (max(1, round(height * self.max_scale)), max(1, round(width * self.max_scale)))
        enlarged = pixels if self.max_scale == 1 else resize(pixels, size)
        found, _, votes = self._classifiers[label].detectMultiScale3(
            enlarged, scaleFactor=self.scale_factor, minNeighbors=0, outputRejectLevels=True
        )
        # OpenCV's threads find them in any order.
        corners_and_sizes = np.asarray(found, np.float32).reshape(-1, 4)
        order = np.lexsort((np.reshape(votes, -1), *corners_and_sizes.T))
        corners, sizes = torch.from_numpy(corners_and_sizes[order]).split(2, dim=1)
        boxes = torch.cat([corners, corners + sizes], dim=1) / self.max_scale
        margins = torch.from_numpy(np.asarray(votes, np.float32).reshape(-1)[order]) - stages[-1, 1]
        return Windows(boxes, margins.clamp(min=MIN_MARGIN))

    def _add_stage(self, label: int) -> None:
        """Train a stage on the examples of a class."""
        cascade = self.cascade(label)
        positives = _choose(self.positives[label], MAX_POSITIVES)
        negatives = _choose(self.negatives[label], MAX_NEGATIVES)
        windows = torch.from_numpy(np.stack([*positives, *negatives]))
        is_positive = torch.arange(len(windows)) < len(positives)
        kept = has_contrast(windows)
        windows, is_positive = windows[kept], is_positive[kept]
        if not is_positive.any() or is_positive.all():
            return
        candidates = enumerate_features(*self._size(label), step=self.feature_step)
        stage = fit_stage(
            haar_features(windows, candidates),
            is_positive,
            min_recall=self.min_recall,
            max_false_positive_rate=self.max_false_positive_rate,
            max_stumps=self.max_stumps,
        )
        if not len(stage.stumps):
            return  # the examples are all alike
        used, places = stage.stumps[:, 0].long().unique(return_inverse=True)
        stumps = stage.stumps.clone()
        stumps[:, 0] = len(cascade.features) + places
        length_and_threshold = torch.tensor([[float(len(stumps)), stage.threshold]])
        extended = Cascade(
            cascade.size,
            torch.cat([cascade.features, candidates[used]]),
            torch.cat([cascade.tilted, torch.zeros(len(used))]),
            torch.cat([cascade.stages, length_and_threshold]),
            torch.cat([cascade.stumps, stumps]),
        )
        self._set_cascade(label, extended)


def merge(boxes: Tensor, margins: Tensor, label: int, *, min_neighbors: int = 1) -> Detections:
    """Average the windows that detect the same object.

    Args:
        boxes: (n, 4).
        margins: (n,) how far each passes the last stage.
        label: their class.
        min_neighbors: number of overlapping windows, itself included, that a box requires.

    Returns:
        For each of these boxes the mean of those around it, weighted by their margins; the score is
        the logarithm of the sum of these.
    """
    if not len(boxes):
        return concatenate([])
    best = margins.topk(min(MAX_WINDOWS, len(margins))).indices
    boxes, margins = boxes[best], margins[best]
    is_near = box_iou(boxes, boxes) >= NEIGHBOR_IOU
    weights = (is_near * margins)[is_near.sum(dim=1) >= min_neighbors]
    sums = weights.sum(dim=1)
    labels = torch.full((len(weights),), label)
    return Detections(weights @ boxes / sums[:, None], labels, sums.log())


def _read_published(name: str, weights: str) -> Cascade:
    if name not in OPENCV_FILES:
        raise ArgumentError(
            "weights",
            weights,
            f"null: OpenCV has no cascade for {name}, but for {', '.join(OPENCV_FILES)}",
        )
    return read_opencv_cascade(name)


def _empty_cascade(height: int, width: int) -> Cascade:
    return Cascade(
        torch.tensor([float(height), float(width)]),
        torch.zeros(0, 3, 5),
        torch.zeros(0),
        torch.zeros(0, 2),
        torch.zeros(0, 4),
    )


def _choose(windows: list[Pixels], number: int) -> list[Pixels]:
    """Choose windows at random, the same ones each time."""
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))
    return [windows[index] for index in order[:number]]


def _to_gray(image: Tensor) -> Pixels:
    pixels = to_pixels(image)
    if pixels.ndim == 2:
        return pixels
    cv2 = import_opencv("this model")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))


def _with_context(box: Tensor) -> Tensor:
    """Enlarge the box of an object to its window."""
    side = (box[2:] - box[:2]) * CONTEXT / (1 - 2 * CONTEXT)
    return torch.cat([box[:2] - side, box[2:] + side])


def _jitter(window: Tensor, generator: torch.Generator) -> Tensor:
    """Move and scale a window about as much as those of a search are from an object."""
    random = 2 * torch.rand(3, generator=generator) - 1
    side = window[2:] - window[:2]
    center = (window[:2] + window[2:]) / 2 + MAX_SHIFT * random[:2] * side
    half = side / 2 * (MAX_LOG_SCALE * random[2]).exp()
    return torch.cat([center - half, center + half])


def _without_context(windows: Tensor) -> Tensor:
    """Return the boxes of objects in windows, (n, 4)."""
    side = (windows[:, 2:] - windows[:, :2]) * CONTEXT
    return torch.cat([windows[:, :2] + side, windows[:, 2:] - side], dim=1)


def _random_windows(
    pixels: Pixels, size: tuple[int, int], max_scale: float, generator: torch.Generator
) -> Tensor:
    """Draw windows of random sizes and places in an image, (n, 4); none if it is too small."""
    height, width = pixels.shape
    window_height, window_width = size[0] / max_scale, size[1] / max_scale
    largest = min(height / window_height, width / window_width)
    if largest < 1:
        return torch.zeros(0, 4)
    random = torch.rand(NEGATIVES_PER_IMAGE, 3, generator=generator)
    scale = (random[:, 0] * log(largest)).exp()
    box_height, box_width = window_height * scale, window_width * scale
    x, y = random[:, 1] * (width - box_width), random[:, 2] * (height - box_height)
    return torch.stack([x, y, x + box_width, y + box_height], dim=1)
