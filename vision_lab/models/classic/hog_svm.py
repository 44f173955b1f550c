"""A linear classifier of HOG features in a sliding window, for each class.

Dalal, Triggs: Histograms of Oriented Gradients for Human Detection, 2005.
https://doi.org/10.1109/CVPR.2005.177

As in the paper, a first classifier is trained on windows around objects and on random windows
without one, and then again with the windows that it mistakes for objects. Unlike in the paper, the
window of a class has the mean aspect ratio of its objects, and there are further rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, log
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from vision_lab.core.arguments import Fraction, Positive, Range
from vision_lab.core.batch import BoxTargets, Detections
from vision_lab.core.checking import check_arguments
from vision_lab.core.errors import DataError
from vision_lab.core.extras import import_opencv
from vision_lab.core.spec import DataSpec
from vision_lab.models.classic.detector import ClassicDetector, concatenate, trained_objects
from vision_lab.models.classic.hog import (
    HOG_CHANNELS,
    Level,
    Pixels,
    compute_hog,
    crop_window,
    hog_pyramid,
    to_pixels,
)
from vision_lab.models.classic.linear_svm import fit_linear_svm

CONTEXT_CELLS = 1
"""Cells around an object that belong to its window."""

NEGATIVE_IOU = 0.3
"""IoU with objects of the class below which a window is none of them."""

MARGIN_SCORE = -1.0
"""Score above which a window without object costs something in the support vector machine."""

MAX_DETECTED = 200
"""Maximum number of windows of a level and class that are considered, those with best scores."""

RANDOM_NEGATIVES = 5
"""Random windows of each image in the first round."""

UNFITTED_BIAS = -100.0
"""Bias of a classifier that is not fitted yet, which finds nothing."""

HARD_NEGATIVES = 10
"""Maximum number of windows of an image that are added in a later round."""

DETECTIONS_PER_IMAGE = 100
"""Maximum number of detections, those with the highest scores, as of other heads."""

MAX_NEGATIVES = 4000
"""Maximum number of windows without object of a class that are kept, those with best scores."""


class Window(NamedTuple):
    """Size of the window of a class, in blocks."""

    rows: int
    columns: int


class HogSvm(ClassicDetector):
    """Detects objects by the scores of linear classifiers at all positions of a HOG pyramid.

    Args:
        spec: spec of the data.
        cell_size: side of a cell in pixels.
        object_cells: geometric mean of the height and width of objects in a window, in cells.
        scales_per_octave: levels of the pyramid between an image and one of half its size.
        max_scale: the largest factor by which images are enlarged, for small objects.
        penalty: weight of the losses of the support vector machines.
        arguments: arguments of ``ClassicDetector``.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        cell_size: int,
        object_cells: int,
        scales_per_octave: int,
        max_scale: float,
        penalty: float,
        **arguments: Any,
    ) -> None:
        super().__init__(spec, **arguments)
        import_opencv("hog_svm")  # fails before training
        self.cell_size = cell_size
        self.object_cells = object_cells
        self.scales_per_octave = scales_per_octave
        self.max_scale = max_scale
        self.penalty = penalty
        self.positives: list[list[Tensor]] = [[] for _ in range(spec.num_classes)]
        """Features of the objects of each class that were collected in this round."""
        self.negatives: list[list[Tensor]] = [[] for _ in range(spec.num_classes)]
        """Features of windows without such an object, of this round and of those before."""
        for label in range(spec.num_classes):
            self.set_parameter(_filter_name(label), torch.zeros(HOG_CHANNELS, 0, 0))
            self.set_parameter(_bias_name(label), torch.tensor(UNFITTED_BIAS))

    def prepare(self, targets: Iterable[BoxTargets]) -> None:
        """Set the window of each class by the mean aspect ratio of its objects."""
        logs: list[list[float]] = [[] for _ in range(self.spec.num_classes)]
        for target in targets:
            for box, label in zip(*trained_objects(target), strict=True):
                width, height = (box[2:] - box[:2]).tolist()
                logs[label].append(log(width / height))
        for label, values in enumerate(logs):
            if not values:
                raise DataError(
                    f"{self.spec.class_names[label]}: the training images contain no such object, "
                    "but this model requires some of each class"
                )
            ratio = exp(sum(values) / len(values))
            rows = max(2, round(self.object_cells / ratio**0.5)) - 1 + 2 * CONTEXT_CELLS
            columns = max(2, round(self.object_cells * ratio**0.5)) - 1 + 2 * CONTEXT_CELLS
            self.set_parameter(_filter_name(label), torch.zeros(HOG_CHANNELS, rows, columns))

    def collect(
        self, image: Tensor, target: BoxTargets, *, round_index: int, generator: torch.Generator
    ) -> None:
        """Collect objects, and windows without object: random ones, then those with best scores."""
        pixels = to_pixels(image)
        levels = self.make_pyramid(pixels)
        for label in range(self.spec.num_classes):
            self._collect_positives(pixels, target, label)
            if round_index == 0:
                windows = self._draw_windows(levels, target, label, generator)
            else:
                windows = self._find_mistakes(levels, target, label)
            height, width = self.window(label)
            for level, row, column in windows.tolist():
                blocks = levels[level].blocks[:, row : row + height, column : column + width]
                self.negatives[label].append(blocks.flatten().half())

    def fit(self) -> dict[str, Tensor]:
        """Train the classifier of each class."""
        for label in range(self.spec.num_classes):
            self._fit_class(label)
        counts = [len(features) for features in self.negatives]
        return {"negatives": torch.tensor(float(sum(counts)))}

    def fit_state(self) -> dict[str, Tensor]:
        """Return the windows without object that are kept."""
        stacked = {}
        for label, features in enumerate(self.negatives):
            if features:
                stacked[str(label)] = torch.stack(features)
        return stacked

    def load_fit_state(self, state: dict[str, Tensor]) -> None:
        for label, features in state.items():
            self.negatives[int(label)] = list(features)

    def detect(self, image: Tensor) -> Detections:
        """Detect objects in an image, before non-maximum suppression."""
        levels = self.make_pyramid(to_pixels(image))
        found = []
        for label in range(self.spec.num_classes):
            for level in levels:
                found.append(self._detect_class(level, label))
        return concatenate(found)

    def make_pyramid(self, pixels: Pixels) -> list[Level]:
        """Compute HOG at all scales at which an object may fill a window or the image."""
        smallest = 2 * CONTEXT_CELLS * self.cell_size / min(pixels.shape[:2])
        scales = []
        scale = self.max_scale
        while scale >= smallest:
            scales.append(scale)
            scale /= 2 ** (1 / self.scales_per_octave)
        return hog_pyramid(
            pixels, cell_size=self.cell_size, scales=scales, padding_cells=self.object_cells // 2
        )

    def window(self, label: int) -> Window:
        """Return the window of a class."""
        weight = self._filter(label)
        return Window(weight.shape[1], weight.shape[2])

    def window_boxes(self, level: Level, label: int, positions: Tensor) -> Tensor:
        """Return the boxes of objects in windows.

        Args:
            level: level of the pyramid.
            label: class of the windows.
            positions: (n, 2) row and column of the windows.

        Returns:
            (n, 4) in pixels of the image.
        """
        rows, columns = self.window(label)
        y1, x1 = (positions + CONTEXT_CELLS).float().unbind(dim=1)
        height, width = rows + 1 - 2 * CONTEXT_CELLS, columns + 1 - 2 * CONTEXT_CELLS
        return level.to_image(torch.stack([x1, y1, x1 + width, y1 + height], dim=1))

    def score(self, level: Level, label: int) -> Tensor:
        """Compute the score of the window of a class at each position, (rows, columns)."""
        weight = self._filter(label)
        rows = level.blocks.shape[1] - weight.shape[1] + 1
        columns = level.blocks.shape[2] - weight.shape[2] + 1
        if rows < 1 or columns < 1:
            return torch.zeros(max(rows, 0), max(columns, 0))
        bias = self.get_parameter(_bias_name(label))
        return F.conv2d(level.blocks[None], weight[None])[0, 0] + bias

    def _filter(self, label: int) -> Tensor:
        return self.get_parameter(_filter_name(label))

    def _detect_class(self, level: Level, label: int) -> Detections:
        scores = self.score(level, label)
        best, index = scores.flatten().topk(min(MAX_DETECTED, scores.numel()))
        index = index[best > MARGIN_SCORE]
        columns = max(scores.shape[1], 1)
        positions = torch.stack([index // columns, index % columns], dim=1)
        boxes = self.window_boxes(level, label, positions)
        labels = torch.full((len(index),), label)
        return Detections(boxes, labels, scores.flatten()[index].sigmoid())

    def _collect_positives(self, pixels: Pixels, target: BoxTargets, label: int) -> None:
        """Collect the objects of a class and their mirror images."""
        rows, columns = self.window(label)
        size = ((rows + 1) * self.cell_size, (columns + 1) * self.cell_size)
        for box, own in zip(*trained_objects(target), strict=True):
            if own == label:
                crop = crop_window(pixels, self._with_context(box, label), size)
                for shown in (crop, crop[:, ::-1]):
                    blocks = compute_hog(shown, cell_size=self.cell_size)
                    self.positives[label].append(blocks.flatten())

    def _with_context(self, box: Tensor, label: int) -> Tensor:
        """Enlarge the box of an object to its window."""
        rows, columns = self.window(label)
        x1, y1, x2, y2 = box.tolist()
        x_cell = (x2 - x1) / (columns + 1 - 2 * CONTEXT_CELLS)
        y_cell = (y2 - y1) / (rows + 1 - 2 * CONTEXT_CELLS)
        x_context, y_context = CONTEXT_CELLS * x_cell, CONTEXT_CELLS * y_cell
        return torch.tensor([x1 - x_context, y1 - y_context, x2 + x_context, y2 + y_context])

    def _draw_windows(
        self,
        levels: Sequence[Level],
        target: BoxTargets,
        label: int,
        generator: torch.Generator,
    ) -> Tensor:
        """Draw windows without object: (n, 3) level, row and column."""
        drawn = []
        for _ in range(RANDOM_NEGATIVES):
            level = int(torch.randint(len(levels), (), generator=generator))
            shape = self.score(levels[level], label).shape
            if 0 in shape:
                continue
            row, column = (int(torch.randint(side, (), generator=generator)) for side in shape)
            boxes = self.window_boxes(levels[level], label, torch.tensor([[row, column]]))
            if not _overlaps(boxes, target, label).any():
                drawn.append([level, row, column])
        return torch.tensor(drawn, dtype=torch.int64).view(-1, 3)

    def _find_mistakes(self, levels: Sequence[Level], target: BoxTargets, label: int) -> Tensor:
        """Find the windows without object with the best scores: (n, 3), as ``_draw_windows``."""
        found, scores = [torch.zeros(0, 3, dtype=torch.int64)], [torch.zeros(0)]
        for number, level in enumerate(levels):
            map_ = self.score(level, label)
            positions = (map_ > MARGIN_SCORE).nonzero()
            boxes = self.window_boxes(level, label, positions)
            wrong = positions[~_overlaps(boxes, target, label)]
            found.append(F.pad(wrong, (1, 0), value=number))
            scores.append(map_[wrong[:, 0], wrong[:, 1]])
        all_scores = torch.cat(scores)
        best = all_scores.topk(min(HARD_NEGATIVES, len(all_scores))).indices
        return torch.cat(found)[best]

    def _fit_class(self, label: int) -> None:
        """Train the classifier of a class, and keep the hardest windows without object."""
        if not self.negatives[label] or not self.positives[label]:
            return  # a round may leave out images of a last, incomplete batch
        positives = torch.stack(self.positives[label])
        negatives = torch.stack(self.negatives[label])
        features = torch.cat([positives, negatives.float()])
        is_positive = torch.arange(len(features)) < len(positives)
        weight, bias = fit_linear_svm(features, is_positive, penalty=self.penalty)
        scores = negatives.float() @ weight + bias
        hardest = scores.topk(min(MAX_NEGATIVES, len(scores))).indices.sort().values
        self.positives[label] = []
        self.negatives[label] = list(negatives[hardest])
        self.set_parameter(_filter_name(label), weight.view_as(self._filter(label)))
        self.set_parameter(_bias_name(label), bias)


@check_arguments
def hog_svm(
    spec: DataSpec,
    *,
    cell_size: Annotated[int, Range(ge=2, le=64)] = 4,
    object_cells: Annotated[int, Range(ge=3, le=64)] = 8,
    scales_per_octave: Annotated[int, Range(ge=1, le=20)] = 4,
    max_scale: Annotated[float, Range(ge=0.1, le=8)] = 1.0,
    penalty: Positive = 10.0,
    num_rounds: Annotated[int, Range(ge=1, le=100)] = 3,
    nms_threshold: Fraction = 0.3,
) -> HogSvm:
    """Build the detector.

    Args:
        spec: spec of the data.
        cell_size: side of a cell in pixels.
        object_cells: geometric mean of the height and width of objects in a window, in cells.
        scales_per_octave: levels of the pyramid between an image and one of half its size.
        max_scale: the largest factor by which images are enlarged, for small objects.
        penalty: weight of the losses of the support vector machines.
        num_rounds: number of rounds, the first of them with random windows without object.
        nms_threshold: IoU above which non-maximum suppression drops the lower-scoring box of a
            class.

    Raises:
        ConfigurationError: if OpenCV is not installed.
    """
    return HogSvm(
        spec,
        cell_size=cell_size,
        object_cells=object_cells,
        scales_per_octave=scales_per_octave,
        max_scale=max_scale,
        penalty=penalty,
        num_rounds=num_rounds,
        nms_threshold=nms_threshold,
        detections_per_image=DETECTIONS_PER_IMAGE,
    )


def _filter_name(label: int) -> str:
    return f"filter{label}"


def _bias_name(label: int) -> str:
    return f"bias{label}"


def _overlaps(boxes: Tensor, target: BoxTargets, label: int) -> Tensor:
    """Return which boxes overlap with an object of a class, crowds included, (n,) bool."""
    objects = target.boxes[target.labels == label]
    if not len(objects) or not len(boxes):
        return torch.zeros(len(boxes), dtype=torch.bool)
    return box_iou(boxes, objects).max(dim=1).values >= NEGATIVE_IOU
