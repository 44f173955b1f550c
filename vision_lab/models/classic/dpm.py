"""Deformable part model: a root filter, and parts that may move, over a HOG pyramid.

Felzenszwalb, Girshick, McAllester, Ramanan: Object Detection with Discriminatively Trained
Part-Based Models, 2010. https://doi.org/10.1109/TPAMI.2009.167

A window is scored by its root filter, by its part filters at twice the resolution, less the costs
of their displacements from their anchors, and a bias (equation 2). Where the parts of an object are
is not annotated: they are placed by the model of the round before, to which the support vector
machine is then fitted (section 4). As in the paper, parts begin as pieces of the root filter where
it has most energy. Unlike in the paper, HOG has Dalal's 36 channels instead of 31, the components
of a class are fitted one by one, and boxes are those of root filters, not predicted from parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from vision_lab.core.arguments import Fraction, Positive, Range
from vision_lab.core.batch import BoxTargets
from vision_lab.core.checking import check_arguments
from vision_lab.core.spec import DataSpec
from vision_lab.models.classic.detector import trained_objects
from vision_lab.models.classic.distance_transform import place_parts
from vision_lab.models.classic.hog import HOG_CHANNELS, Level
from vision_lab.models.classic.hog_svm import HogSvm, Placements, correlate, crop_blocks
from vision_lab.models.classic.pixels import Pixels

ROOT_ROUNDS = 2
"""Rounds in which only root filters are fitted, as in ``HogSvm``."""

LATENT_IOU = 0.7
"""IoU with an object from which a window may be chosen for it, if any window has as much."""

MIN_LATENT_IOU = 0.5
"""IoU that the best window must have; objects that no window fits are left out."""

FIRST_DEFORMATION = (0.0, 0.0, 0.1, 0.1)
"""Costs of dx, dy, dx^2 and dy^2 of a part that is not fitted yet."""

MIN_QUADRATIC_COST = 0.05
"""Lower bound of the costs of dx^2 and dy^2, which keep parts near their anchors; in the paper, of
larger objects, 0.01."""


class Dpm(HogSvm):
    """Detects objects by a root filter and deformable parts.

    Args:
        spec: spec of the data.
        cell_size: side of a cell in pixels.
        object_cells: geometric mean of the height and width of objects in a window, in cells of
            the root filter.
        num_components: number of components of a class, each for objects of another aspect ratio.
        num_parts: maximum number of parts of a component.
        part_size: height and width of a part in blocks, half a cell of the root filter each.
        scales_per_octave: levels of the pyramid between an image and one of half its size.
        max_scale: the largest factor by which images are enlarged for root filters; parts use
            twice that scale.
        penalty: weight of the losses of the support vector machines.
        num_rounds: number of rounds, two of them with root filters only.
        nms_threshold: IoU above which non-maximum suppression drops the lower-scoring box of a
            class.
        calibration_fraction: fraction of the training images by which scores become probabilities.

    Raises:
        ConfigurationError: if OpenCV or SciPy is not installed.
    """

    random_rounds = (0, ROOT_ROUNDS)
    max_negatives = 4000

    @check_arguments
    def __init__(
        self,
        spec: DataSpec,
        *,
        cell_size: Annotated[int, Range(ge=2, le=64)] = 4,
        object_cells: Annotated[int, Range(ge=3, le=64)] = 6,
        num_components: Annotated[int, Range(ge=1, le=10)] = 1,
        num_parts: Annotated[int, Range(ge=1, le=20)] = 6,
        part_size: Annotated[int, Range(ge=2, le=6)] = 5,
        scales_per_octave: Annotated[int, Range(ge=1, le=20)] = 4,
        max_scale: Annotated[float, Range(ge=0.1, le=8)] = 1.0,
        penalty: Positive = 1.0,
        num_rounds: Annotated[int, Range(ge=3, le=100)] = 5,
        nms_threshold: Fraction = 0.3,
        calibration_fraction: Fraction = 0.1,
    ) -> None:
        super().__init__(
            spec,
            cell_size=cell_size,
            object_cells=object_cells,
            num_components=num_components,
            scales_per_octave=scales_per_octave,
            max_scale=max_scale,
            penalty=penalty,
            num_rounds=num_rounds,
            nms_threshold=nms_threshold,
            calibration_fraction=calibration_fraction,
        )
        self.num_parts = num_parts
        self.part_size = part_size
        for component in self.components():
            self._set_parts(component, torch.zeros(0, 2, dtype=torch.int64))

    def collect(
        self, image: Tensor, target: BoxTargets, *, round_index: int, generator: torch.Generator
    ) -> None:
        """Collect objects and windows without object; parts are chosen before the third round."""
        if round_index >= ROOT_ROUNDS:
            for component in self.components():
                if not self.has_parts(component):
                    self._add_parts(component)
        super().collect(image, target, round_index=round_index, generator=generator)

    def largest_scale(self) -> float:
        """Return the scale of the first level, of which only parts are used."""
        return 2 * self.max_scale

    def place(self, levels: Sequence[Level], number: int, component: int) -> Placements:
        """Score the windows of a component on a level, and place their parts.

        Args:
            levels: a pyramid; parts are placed on the level of twice the scale.
            number: index of the level; where no level has twice its scale, there are no windows.
            component: index of the component.

        Returns:
            The scores, and where each part is on its level, which ``_part_level`` returns.
        """
        if number < self.scales_per_octave:
            empty = torch.zeros(0, 0)
            return Placements(empty, torch.zeros(0, 2, 0, 0, dtype=torch.int64))
        windows = super().place(levels, number, component)
        if not self.has_parts(component) or not windows.scores.numel():
            return windows
        rows, columns = (torch.arange(side) for side in windows.scores.shape)
        anchors = self.get_parameter(f"anchors{component}")
        parts = place_parts(
            correlate(self._part_level(levels, number), self.get_parameter(f"parts{component}")),
            self.get_parameter(f"deformation{component}"),
            2 * rows + anchors[:, :1],
            2 * columns + anchors[:, 1:],
        )
        scores = windows.scores + parts.scores.sum(dim=0)
        return Placements(scores, torch.stack([parts.rows, parts.columns], dim=1))

    def window_features(
        self,
        levels: Sequence[Level],
        number: int,
        placed: Placements,
        component: int,
        position: tuple[int, int],
    ) -> Tensor:
        """Return the features of a window, (D,): of its root, its parts and their displacements."""
        root = super().window_features(levels, number, placed, component, position)
        if not self.has_parts(component):
            return root
        row, column = position
        places = placed.parts[:, :, row, column]
        anchors = self.get_parameter(f"anchors{component}")
        dy, dx = (places - anchors - 2 * torch.tensor([row, column])).float().unbind(dim=1)
        displacements = torch.stack([dx, dy, dx.square(), dy.square()], dim=1)
        level = self._part_level(levels, number)
        size = (self.part_size, self.part_size)
        parts = [crop_blocks(level, (int(y), int(x)), size).flatten() for y, x in places]
        return torch.cat([root, *parts, -displacements.flatten()])

    def set_weight(self, component: int, weight: Tensor) -> None:
        """Set a fitted weight (D,), in the order of ``window_features``."""
        names = (f"filter{component}", f"parts{component}", f"deformation{component}")
        values = [self.get_parameter(name) for name in names]
        pieces = weight.split([value.numel() for value in values])
        for name, value, piece in zip(names, values, pieces, strict=True):
            self.set_parameter(name, piece.view_as(value))

    def minimum_weight(self, component: int) -> Tensor:
        """Return lower bounds (D,) of the weight: of the quadratic costs of parts."""
        of_root = super().minimum_weight(component)
        of_parts = torch.full((self.get_parameter(f"parts{component}").numel(),), -torch.inf)
        of_costs = torch.full_like(self.get_parameter(f"deformation{component}"), -torch.inf)
        of_costs[:, 2:] = MIN_QUADRATIC_COST
        return torch.cat([of_root, of_parts, of_costs.flatten()])

    def collect_positives(self, pixels: Pixels, target: BoxTargets) -> None:
        """Collect the objects of an image and their mirror images.

        Once there are parts, the window of an object is the one with the best score of those that
        overlap with it by ``LATENT_IOU``.
        """
        objects = list(zip(*trained_objects(target), strict=True))
        components = {self.component_of(box, label) for box, label in objects}
        if not all(self.has_parts(component) for component in components):
            super().collect_positives(pixels, target)
            return
        width = pixels.shape[1]
        mirrored = np.ascontiguousarray(pixels[:, ::-1])
        for shown, is_mirrored in ((pixels, False), (mirrored, True)):
            levels = self.make_pyramid(shown)
            for component in sorted(components):
                placements = self.place_on_levels(levels, component)
                for box, label in objects:
                    if self.component_of(box, label) != component:
                        continue
                    seen = _mirror(box, width) if is_mirrored else box
                    self._collect_object(levels, placements, seen, component)

    def has_parts(self, component: int) -> bool:
        """Return whether the parts of a component are chosen."""
        return len(self.get_parameter(f"anchors{component}")) > 0

    def _collect_object(
        self, levels: Sequence[Level], placements: Sequence[Placements], box: Tensor, component: int
    ) -> None:
        """Collect the best window for an object, if any fits."""
        best: tuple[float, float, int, tuple[int, int]] | None = None
        for number, placed in enumerate(placements):
            if not placed.scores.numel():
                continue
            positions = torch.ones_like(placed.scores).nonzero()
            boxes = self.window_boxes(levels[number], component, positions)
            overlaps = box_iou(boxes, box[None])[:, 0].clamp(max=LATENT_IOU)
            # The best score of those that overlap enough, or else the largest overlap.
            candidates = (overlaps == overlaps.max()).nonzero()[:, 0]
            scores = placed.scores.flatten()[candidates]
            index = int(candidates[scores.argmax()])
            row, column = divmod(index, placed.scores.shape[1])
            found = (float(overlaps[index]), float(scores.max()), number, (row, column))
            best = found if best is None else max(best, found)
        if best is not None and best[0] >= MIN_LATENT_IOU:
            _, _, number, position = best
            features = self.window_features(levels, number, placements[number], component, position)
            self.positives[component].append(features)

    def _part_level(self, levels: Sequence[Level], number: int) -> Tensor:
        """Return the blocks of the level of parts, (channels, rows, columns), with zeros around it.

        Its block (2 y, 2 x) begins where block (y, x) of the level of the root does.
        """
        fine = levels[number - self.scales_per_octave].blocks
        rows, columns = (2 * side + 1 for side in levels[number].blocks.shape[1:])
        before = self.padding_cells
        after_rows = max(rows - fine.shape[1] - before, 0)
        after_columns = max(columns - fine.shape[2] - before, 0)
        return F.pad(fine, (before, after_columns, before, after_rows))

    def _add_parts(self, component: int) -> None:
        """Choose the parts of a fitted root filter, and forget windows described without parts."""
        root = self.root_filter(component)
        anchors = choose_parts(root, num_parts=self.num_parts, size=self.part_size)
        self._set_parts(component, anchors)
        enlarged = enlarge(root)
        size = (self.part_size, self.part_size)
        # A part has four blocks for each of the root, of which it adds the score once more.
        pieces = [crop_blocks(enlarged, (row, column), size) for row, column in anchors.tolist()]
        self.set_parameter(f"parts{component}", torch.stack(pieces) / 4)
        self.negatives[component] = []

    def _set_parts(self, component: int, anchors: Tensor) -> None:
        """Set parts that are not fitted yet."""
        size = (HOG_CHANNELS, self.part_size, self.part_size)
        self.set_parameter(f"anchors{component}", anchors)
        self.set_parameter(f"parts{component}", torch.zeros(len(anchors), *size))
        costs = torch.tensor(FIRST_DEFORMATION).repeat(len(anchors), 1)
        self.set_parameter(f"deformation{component}", costs)


def choose_parts(root: Tensor, *, num_parts: int, size: int) -> Tensor:
    """Choose the anchors of parts where a root filter has most energy.

    Section 5.2: energy is the squared norm of positive weights; what a part covers counts no more.

    Args:
        root: (channels, rows, columns).
        num_parts: maximum number of parts.
        size: height and width of a part in blocks at twice the resolution.

    Returns:
        (P, 2) row and column at twice the resolution.
    """
    energy = enlarge(root).clamp(min=0).square().sum(dim=0)
    anchors: list[list[int]] = []
    for _ in range(num_parts):
        sums = F.avg_pool2d(energy[None], size, stride=1)[0]
        if anchors and sums.max() <= 0:
            break  # the others cover all positive weights
        row, column = divmod(int(sums.argmax()), sums.shape[1])
        anchors.append([row, column])
        energy[row : row + size, column : column + size] = 0
    return torch.tensor(anchors)


def enlarge(root: Tensor) -> Tensor:
    """Interpolate a root filter at twice its resolution."""
    return F.interpolate(root[None], scale_factor=2, mode="bilinear")[0]


def _mirror(box: Tensor, width: int) -> Tensor:
    """Mirror a box in an image of a width in pixels."""
    x1, y1, x2, y2 = box.unbind()
    return torch.stack([width - x2, y1, width - x1, y2])
