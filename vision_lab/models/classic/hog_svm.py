"""A linear classifier of HOG features in a sliding window, for each class.

Dalal, Triggs: Histograms of Oriented Gradients for Human Detection, 2005.
https://doi.org/10.1109/CVPR.2005.177

As in the paper, a first classifier is trained on windows around objects and on random windows
without one, and then again with the windows that it mistakes for objects. Unlike in the paper, the
window of a class has the mean aspect ratio of its objects, and there are further rounds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vision_lab.core.arguments import Fraction, Positive, Range
from vision_lab.core.batch import BoxTargets, Detections
from vision_lab.core.checking import check_arguments
from vision_lab.core.extras import import_opencv, import_scipy_optimize
from vision_lab.core.spec import DataSpec
from vision_lab.models.classic.detector import (
    ClassicDetector,
    concatenate,
    log_ratio,
    log_ratios,
    overlaps_with_class,
    trained_objects,
)
from vision_lab.models.classic.hog import HOG_CHANNELS, Level, compute_hog, hog_pyramid
from vision_lab.models.classic.linear_svm import fit_linear_svm
from vision_lab.models.classic.pixels import Pixels, crop_window, to_pixels

log = logging.getLogger(__name__)

CONTEXT_CELLS = 1
"""Cells around an object that belong to its window."""

MARGIN_SCORE = -1.0
"""Score above which a window without object costs something in the support vector machine."""

MAX_DETECTED = 200
"""Maximum number of windows of a level and class that are considered, those with best scores."""

RANDOM_NEGATIVES = 5
"""Random windows of each image in the first round."""

UNFITTED_BIAS = -100.0
"""Bias of a classifier that is not fitted yet, which finds nothing."""


class Window(NamedTuple):
    """Size of a window, in blocks."""

    rows: int
    columns: int


class Placements(NamedTuple):
    """The windows of a component at all positions of a level.

    Attributes:
        scores: (rows, columns).
        parts: (P, 2, rows, columns) int64 row and column of each movable part; none here, see
            ``models.classic.dpm``.
    """

    scores: Tensor
    parts: Tensor


class HogSvm(ClassicDetector):
    """Detects objects by the scores of linear classifiers at all positions of a HOG pyramid.

    A class has one or more components, each with a window and a classifier of its own. The objects
    of a class are divided among them by their aspect ratio.

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
        calibration_fraction: fraction of the training images by which scores become probabilities.
        num_components: number of components of a class.

    Attributes:
        random_rounds: indices of the rounds with random windows without object.
        hard_negatives: maximum number of windows of an image that are added in a later round.
        max_negatives: maximum number of windows without object of a component that are kept.

    Raises:
        ConfigurationError: if OpenCV or SciPy is not installed.
    """

    random_rounds: tuple[int, ...] = (0,)
    hard_negatives = 3
    max_negatives = 6000

    @check_arguments
    def __init__(
        self,
        spec: DataSpec,
        *,
        cell_size: Annotated[int, Range(ge=2, le=64)] = 4,
        object_cells: Annotated[int, Range(ge=3, le=64)] = 6,
        scales_per_octave: Annotated[int, Range(ge=1, le=20)] = 4,
        max_scale: Annotated[float, Range(ge=0.1, le=8)] = 1.0,
        penalty: Positive = 1.0,
        num_rounds: Annotated[int, Range(ge=1, le=100)] = 4,
        nms_threshold: Fraction = 0.3,
        calibration_fraction: Fraction = 0.1,
        num_components: Annotated[int, Range(ge=1, le=10)] = 1,
    ) -> None:
        super().__init__(
            spec,
            num_rounds=num_rounds,
            nms_threshold=nms_threshold,
            calibration_fraction=calibration_fraction,
        )
        import_opencv("this model")  # fails before training
        import_scipy_optimize("a support vector machine")
        self.cell_size = cell_size
        self.object_cells = object_cells
        self.scales_per_octave = scales_per_octave
        self.max_scale = max_scale
        self.penalty = penalty
        self.num_components = num_components
        components = self.components()
        self.positives: list[list[Tensor]] = [[] for _ in components]
        """Features of the objects of each component that were collected in this round."""
        self.negatives: list[list[Tensor]] = [[] for _ in components]
        """Features of windows without such an object, of this round and of those before."""
        for component in components:
            self.set_parameter(f"filter{component}", torch.zeros(HOG_CHANNELS, 0, 0))
            self.set_parameter(f"bias{component}", torch.tensor(UNFITTED_BIAS))

    def prepare(self, targets: Iterable[BoxTargets]) -> None:
        """Set the window of each component by the mean aspect ratio of its objects."""
        for label, ratios in enumerate(log_ratios(targets, self.spec)):
            ordered = ratios.sort().values
            for number, group in enumerate(ordered.tensor_split(self.num_components)):
                mean = group.mean() if len(group) else ordered.mean()
                self._set_window(label * self.num_components + number, math.exp(float(mean)))

    def collect(
        self, image: Tensor, target: BoxTargets, *, round_index: int, generator: torch.Generator
    ) -> None:
        """Collect objects, and windows without object: random ones, then those with best scores."""
        pixels = to_pixels(image)
        levels = self.make_pyramid(pixels)
        self.collect_positives(pixels, target)
        for component in self.components():
            placements = self.place_on_levels(levels, component)
            windows = []
            if round_index in self.random_rounds:
                windows += self._draw_windows(levels, placements, target, component, generator)
            if round_index > 0:
                windows += self._find_mistakes(levels, placements, target, component)
            for number, row, column in windows:
                features = self.window_features(
                    levels, number, placements[number], component, (row, column)
                )
                self.negatives[component].append(features.half())

    def fit(self) -> dict[str, Tensor]:
        """Train the classifier of each component."""
        for component in self.components():
            self._fit_component(component)
        counts = [len(features) for features in self.negatives]
        return {"negatives": torch.tensor(float(sum(counts)))}

    def fit_state(self) -> dict[str, Tensor]:
        """Return the windows without object that are kept."""
        stacked = {}
        for component, features in enumerate(self.negatives):
            if features:
                stacked[str(component)] = torch.stack(features)
        return stacked

    def load_fit_state(self, state: dict[str, Tensor]) -> None:
        for component, features in state.items():
            self.negatives[int(component)] = list(features)

    def detect(self, image: Tensor) -> Detections:
        """Detect objects in an image, before non-maximum suppression."""
        levels = self.make_pyramid(to_pixels(image))
        found = []
        for component in self.components():
            placements = self.place_on_levels(levels, component)
            for level, placed in zip(levels, placements, strict=True):
                found.append(self._detect_component(level, placed.scores, component))
        return concatenate(found)

    def components(self) -> range:
        """The components of all classes; those of a class follow each other."""
        return range(self.spec.num_classes * self.num_components)

    def class_of(self, component: int) -> int:
        """Return the class of a component."""
        return component // self.num_components

    def component_of(self, box: Tensor, label: int) -> int:
        """Return the component for an object: the one whose window has the nearest aspect ratio.

        Args:
            box: (4,) the object in pixels.
            label: its class.
        """
        first = label * self.num_components
        ratio = float(log_ratio(box))

        def distance(component: int) -> float:
            height, width = self._object_size(component)
            return abs(math.log(width / height) - ratio)

        return min(range(first, first + self.num_components), key=distance)

    def make_pyramid(self, pixels: Pixels) -> list[Level]:
        """Compute HOG at all scales at which an object may fill a window or the image."""
        smallest = 2 * CONTEXT_CELLS * self.cell_size / min(pixels.shape[:2])
        scales = []
        scale = self.largest_scale()
        while scale >= smallest:
            scales.append(scale)
            scale /= 2 ** (1 / self.scales_per_octave)
        return hog_pyramid(
            pixels, cell_size=self.cell_size, scales=scales, padding_cells=self.padding_cells
        )

    @property
    def padding_cells(self) -> int:
        """Cells that are added on each side of an image."""
        return self.object_cells // 2

    def largest_scale(self) -> float:
        """Return the scale of the first level."""
        return self.max_scale

    def window(self, component: int) -> Window:
        """Return the window of a component."""
        weight = self.root_filter(component)
        return Window(weight.shape[1], weight.shape[2])

    def window_boxes(self, level: Level, component: int, positions: Tensor) -> Tensor:
        """Return the boxes of objects in windows.

        Args:
            level: level of the pyramid.
            component: component of the windows.
            positions: (n, 2) row and column of the windows.

        Returns:
            (n, 4) in pixels of the image.
        """
        height, width = self._object_size(component)
        y1, x1 = (positions + CONTEXT_CELLS).float().unbind(dim=1)
        return level.to_image(torch.stack([x1, y1, x1 + width, y1 + height], dim=1))

    def place_on_levels(self, levels: Sequence[Level], component: int) -> list[Placements]:
        """Score the windows of a component on each level of a pyramid."""
        return [self.place(levels, number, component) for number in range(len(levels))]

    def place(self, levels: Sequence[Level], number: int, component: int) -> Placements:
        """Score the windows of a component on a level.

        Args:
            levels: a pyramid.
            number: index of the level.
            component: index of the component.
        """
        scores = correlate(levels[number].blocks, self.root_filter(component)[None])[0]
        parts = torch.zeros(0, 2, *scores.shape, dtype=torch.int64)
        return Placements(scores + self.get_parameter(f"bias{component}"), parts)

    def window_features(
        self,
        levels: Sequence[Level],
        number: int,
        placed: Placements,  # noqa: ARG002 - subclasses have parts
        component: int,
        position: tuple[int, int],
    ) -> Tensor:
        """Return the features of a window, (D,), of which the score is a linear function.

        Args:
            levels: a pyramid.
            number: index of the level.
            placed: the windows of the level.
            component: index of the component.
            position: row and column of the window.
        """
        rows, columns = self.window(component)
        return crop_blocks(levels[number].blocks, position, (rows, columns)).flatten()

    def set_weight(self, component: int, weight: Tensor) -> None:
        """Set a fitted weight (D,), in the order of ``window_features``."""
        self.set_parameter(f"filter{component}", weight.view_as(self.root_filter(component)))

    def minimum_weight(self, component: int) -> Tensor:
        """Return lower bounds (D,) of the weight; here there are none."""
        return torch.full((self.root_filter(component).numel(),), -torch.inf)

    def root_filter(self, component: int) -> Tensor:
        """Return the weight of a component, (``HOG_CHANNELS``, rows, columns)."""
        return self.get_parameter(f"filter{component}")

    def collect_positives(self, pixels: Pixels, target: BoxTargets) -> None:
        """Collect the objects of an image and their mirror images."""
        for box, label in zip(*trained_objects(target), strict=True):
            component = self.component_of(box, label)
            rows, columns = self.window(component)
            size = ((rows + 1) * self.cell_size, (columns + 1) * self.cell_size)
            crop = crop_window(pixels, self._with_context(box, component), size)
            for shown in (crop, crop[:, ::-1]):
                blocks = compute_hog(shown, cell_size=self.cell_size)
                self.positives[component].append(blocks.flatten())

    def _set_window(self, component: int, ratio: float) -> None:
        """Set the window of a component for objects of an aspect ratio, width / height."""
        rows = max(2, round(self.object_cells / ratio**0.5)) - 1 + 2 * CONTEXT_CELLS
        columns = max(2, round(self.object_cells * ratio**0.5)) - 1 + 2 * CONTEXT_CELLS
        self.set_parameter(f"filter{component}", torch.zeros(HOG_CHANNELS, rows, columns))

    def _object_size(self, component: int) -> tuple[int, int]:
        """Return the height and width of an object in its window, in cells."""
        rows, columns = self.window(component)
        return rows + 1 - 2 * CONTEXT_CELLS, columns + 1 - 2 * CONTEXT_CELLS

    def _with_context(self, box: Tensor, component: int) -> Tensor:
        """Enlarge the box of an object to its window."""
        height, width = self._object_size(component)
        x1, y1, x2, y2 = box.tolist()
        x_context = CONTEXT_CELLS * (x2 - x1) / width
        y_context = CONTEXT_CELLS * (y2 - y1) / height
        return torch.tensor([x1 - x_context, y1 - y_context, x2 + x_context, y2 + y_context])

    def _detect_component(self, level: Level, scores: Tensor, component: int) -> Detections:
        best, index = scores.flatten().topk(min(MAX_DETECTED, scores.numel()))
        index = index[best > MARGIN_SCORE]
        columns = max(scores.shape[1], 1)
        positions = torch.stack([index // columns, index % columns], dim=1)
        boxes = self.window_boxes(level, component, positions)
        labels = torch.full((len(index),), self.class_of(component))
        return Detections(boxes, labels, scores.flatten()[index])

    def _draw_windows(
        self,
        levels: Sequence[Level],
        placements: Sequence[Placements],
        target: BoxTargets,
        component: int,
        generator: torch.Generator,
    ) -> list[list[int]]:
        """Draw windows without object: level, row and column of each."""
        drawn: list[list[int]] = []
        if not levels:
            return drawn  # the image is smaller than any object may be
        for _ in range(RANDOM_NEGATIVES):
            number = int(torch.randint(len(levels), (), generator=generator))
            shape = placements[number].scores.shape
            if 0 in shape:
                continue
            row, column = (int(torch.randint(side, (), generator=generator)) for side in shape)
            boxes = self.window_boxes(levels[number], component, torch.tensor([[row, column]]))
            if not overlaps_with_class(boxes, target, self.class_of(component)).any():
                drawn.append([number, row, column])
        return drawn

    def _find_mistakes(
        self,
        levels: Sequence[Level],
        placements: Sequence[Placements],
        target: BoxTargets,
        component: int,
    ) -> list[list[int]]:
        """Find the windows without object with the best scores, as ``_draw_windows``."""
        found, scores = [torch.zeros(0, 3, dtype=torch.int64)], [torch.zeros(0)]
        for number, placed in enumerate(placements):
            positions = (placed.scores > MARGIN_SCORE).nonzero()
            boxes = self.window_boxes(levels[number], component, positions)
            wrong = positions[~overlaps_with_class(boxes, target, self.class_of(component))]
            found.append(F.pad(wrong, (1, 0), value=number))
            scores.append(placed.scores[wrong[:, 0], wrong[:, 1]])
        all_scores = torch.cat(scores)
        best = all_scores.topk(min(self.hard_negatives, len(all_scores))).indices
        rows: list[list[int]] = torch.cat(found)[best].tolist()
        return rows

    def _fit_component(self, component: int) -> None:
        """Train a classifier, and keep windows without object for the next round."""
        collected, self.positives[component] = self.positives[component], []
        if not self.negatives[component] or not collected:
            self._warn_unfitted(component, has_objects=bool(collected))
            return
        positives = torch.stack(collected)
        negatives = torch.stack(self.negatives[component])
        features = torch.cat([positives, negatives.float()])
        is_positive = torch.arange(len(features)) < len(positives)
        weight, bias = fit_linear_svm(
            features,
            is_positive,
            penalty=self.penalty,
            minimum=self.minimum_weight(component),
        )
        # The hardest ones alone would be another distribution than that of an image.
        generator = torch.Generator().manual_seed(component)
        kept = torch.randperm(len(negatives), generator=generator)[: self.max_negatives]
        self.negatives[component] = list(negatives[kept])
        self.set_weight(component, weight)
        self.set_parameter(f"bias{component}", bias)

    def _warn_unfitted(self, component: int, *, has_objects: bool) -> None:
        height, width = self._object_size(component)
        reason = "they fit into no image: type model.object_cells smaller or model.max_scale larger"
        if not has_objects:
            reason = "no object was collected for them: type model.num_components smaller"
        name = self.spec.class_names[self.class_of(component)]
        log.warning("%s: windows of %d x %d cells are not fitted, %s", name, height, width, reason)


def correlate(blocks: Tensor, filters: Tensor) -> Tensor:
    """Correlate filters with a level at all positions where they fit.

    Args:
        blocks: (channels, rows, columns).
        filters: (n, channels, height, width).

    Returns:
        (n, rows - height + 1, columns - width + 1), of no size where a filter does not fit.
    """
    rows = blocks.shape[1] - filters.shape[2] + 1
    columns = blocks.shape[2] - filters.shape[3] + 1
    if rows < 1 or columns < 1:
        return torch.zeros(len(filters), max(rows, 0), max(columns, 0))
    return F.conv2d(blocks[None], filters)[0]


def crop_blocks(blocks: Tensor, position: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Return the blocks of a window, (channels, height, width).

    Args:
        blocks: (channels, rows, columns).
        position: row and column of its first block.
        size: (height, width) in blocks.
    """
    row, column = position
    return blocks[:, row : row + size[0], column : column + size[1]]
