"""Detectors from before deep networks, which are fitted in rounds instead of by gradients."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou, nms

from vision_lab.core.batch import BoxTargets, Detections
from vision_lab.core.errors import DataError
from vision_lab.core.matching import intersection_over_area, match_detections
from vision_lab.core.protocols import LoadedWeights
from vision_lab.core.spec import DataSpec
from vision_lab.models.classic.calibration import fit_sigmoid

DETECTIONS_PER_IMAGE = 100
"""Maximum number of detections, those with the highest scores, as of other heads."""

NEGATIVE_IOU = 0.3
"""IoU with objects of the class, or fraction in a crowd, below which a window is background."""


class ClassicDetector(nn.Module):
    """Base class of detectors without gradients, see ``core.protocols.FittedDetector``.

    A round is a pass over the training images, from which it collects examples, followed by a fit.
    Scores become probabilities by a sigmoid for each class, which is fitted to the detections in
    images that are held out: of all detections with a score of 0.5, half are correct.

    What it has learned is in parameters that require no gradient, so that ``model.pth`` contains
    them. Their shapes may depend on the training data.

    Args:
        spec: spec of the data.
        num_rounds: number of rounds.
        nms_threshold: IoU above which non-maximum suppression drops the lower-scoring box of a
            class.
        calibration_fraction: fraction of the training images that are held out.
        uncalibrated: scale and offset of the sigmoid before calibration.
    """

    loaded: LoadedWeights | None = None
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        num_rounds: int,
        nms_threshold: float,
        calibration_fraction: float,
        uncalibrated: tuple[float, float] = (1.0, 0.0),
    ) -> None:
        super().__init__()
        self.spec = spec
        self.num_rounds = num_rounds
        self.nms_threshold = nms_threshold
        self.calibration_fraction = calibration_fraction
        self.uncalibrated = uncalibrated
        for label in range(spec.num_classes):
            self.set_parameter(f"calibration{label}", torch.tensor(uncalibrated))
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1), persistent=False)

    def prepare(self, targets: Iterable[BoxTargets]) -> None:
        """Set what depends on the sizes of all objects, before the first round.

        Args:
            targets: the objects of each training image.
        """

    @abstractmethod
    def collect(
        self, image: Tensor, target: BoxTargets, *, round_index: int, generator: torch.Generator
    ) -> None:
        """Collect examples from a training image.

        Args:
            image: (C, H, W) uint8.
            target: its objects.
            round_index: index of the round, from 0.
            generator: for random choices.
        """

    @abstractmethod
    def fit(self) -> dict[str, Tensor]:
        """Fit the detector to the examples of a round, at its end.

        Returns:
            Scalars to log, by name.
        """

    @abstractmethod
    def detect(self, image: Tensor) -> Detections:
        """Detect objects in an image, before non-maximum suppression.

        Args:
            image: (C, H, W) uint8.

        Returns:
            The detections, whose scores are any numbers.
        """

    def calibrate(self, samples: Sequence[tuple[Tensor, BoxTargets]]) -> None:
        """Fit the sigmoid of each class to the detections in images that were held out.

        Args:
            samples: images (C, H, W) uint8 and their objects. Detections of crowds and of difficult
                objects are left out.
        """
        found, is_correct = [], []
        for image, target in samples:
            detections = suppress(self.detect(image), threshold=self.nms_threshold)
            wrong, _ = match_detections(detections, target)
            others, _ = match_detections(detections, target[~(target.crowd | target.difficult)])
            counts = wrong | ~others
            found.append(detections[counts])
            is_correct.append(~wrong[counts])
        detections = concatenate(found)
        for label in range(self.spec.num_classes):
            of_class = detections.labels == label
            sigmoid = torch.tensor(self.uncalibrated)
            if of_class.any():
                sigmoid = fit_sigmoid(detections.scores[of_class], torch.cat(is_correct)[of_class])
            self.set_parameter(f"calibration{label}", sigmoid)

    @abstractmethod
    def fit_state(self) -> dict[str, Tensor]:
        """Return what the next round requires besides the parameters, for checkpoints."""

    @abstractmethod
    def load_fit_state(self, state: dict[str, Tensor]) -> None:
        """Restore what ``fit_state`` has returned."""

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images (N, C, H, W) to their pixels, (N, C, H, W) uint8."""
        return ((images * self.std + self.mean) * 255).round().clamp(0, 255).to(torch.uint8)

    def decode(self, outputs: Tensor) -> list[Detections]:
        """Compute the detections of each image.

        Args:
            outputs: (N, C, H, W) uint8.
        """
        found = []
        for image in outputs.cpu():
            calibrated = self._with_probabilities(self.detect(image))
            detections = suppress(calibrated, threshold=self.nms_threshold)
            best = detections.scores.topk(min(len(detections), DETECTIONS_PER_IMAGE)).indices
            kept = detections[best]
            columns = [kept.boxes, kept.labels, kept.scores]
            found.append(Detections(*(column.to(outputs.device) for column in columns)))
        return found

    def _with_probabilities(self, detections: Detections) -> Detections:
        """Map scores to probabilities."""
        labels = range(self.spec.num_classes)
        sigmoids = torch.stack([self.get_parameter(f"calibration{label}") for label in labels])
        scale, offset = sigmoids[detections.labels].unbind(dim=1)
        return replace(detections, scores=(detections.scores * scale + offset).sigmoid())

    def set_parameter(self, name: str, value: Tensor) -> None:
        """Set a parameter without gradient, of any shape."""
        setattr(self, name, nn.Parameter(value.clone(), requires_grad=False))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ClassicDetector:  # noqa: ARG002
        """Move buffers only: parameters stay on the CPU, where images are searched."""
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        """Take the shapes of the parameters from the file."""
        for name in list(self._parameters):
            if prefix + name in state_dict:
                self.set_parameter(name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def suppress(detections: Detections, *, threshold: float) -> Detections:
    """Drop each detection that overlaps with a better one of its class.

    Args:
        detections: the detections.
        threshold: IoU above which the lower-scoring box is dropped.

    Returns:
        The others, by class.
    """
    kept = []
    for label in detections.labels.unique().tolist():
        rows = (detections.labels == label).nonzero()[:, 0]
        kept.append(rows[nms(detections.boxes[rows], detections.scores[rows], threshold)])
    if not kept:
        return detections
    return detections[torch.cat(kept)]


def concatenate(found: Sequence[Detections]) -> Detections:
    """Concatenate detections."""
    if not found:
        return Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    return Detections(
        torch.cat([each.boxes for each in found]),
        torch.cat([each.labels for each in found]),
        torch.cat([each.scores for each in found]),
    )


def trained_objects(target: BoxTargets) -> tuple[Tensor, list[int]]:
    """Return the boxes and labels of the objects to learn from: no crowds, none without area."""
    has_area = (target.boxes[:, 2:] > target.boxes[:, :2]).all(dim=1)
    kept = target[~target.crowd & has_area]
    return kept.boxes, kept.labels.tolist()


def log_ratio(boxes: Tensor) -> Tensor:
    """Compute the logarithm of the aspect ratio, width / height, of boxes (..., 4)."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(dim=-1)
    return (width / height).log()


def log_ratios(targets: Iterable[BoxTargets], spec: DataSpec) -> list[Tensor]:
    """Compute the logarithms of the aspect ratios of the objects of each class.

    Args:
        targets: the objects of each training image.
        spec: spec of the data.

    Returns:
        (n,) for each class.

    Raises:
        DataError: if a class has no objects.
    """
    found: list[list[Tensor]] = [[] for _ in range(spec.num_classes)]
    for target in targets:
        for box, label in zip(*trained_objects(target), strict=True):
            found[label].append(log_ratio(box))
    for name, ratios in zip(spec.class_names, found, strict=True):
        if not ratios:
            raise DataError(
                f"{name}: the training images contain no such object, but this model requires "
                "some of each class"
            )
    return [torch.stack(ratios) for ratios in found]


def overlaps_with_class(boxes: Tensor, target: BoxTargets, label: int) -> Tensor:
    """Return which boxes overlap with an object of a class, or are in a crowd of it, (n,) bool."""
    same = target[target.labels == label]
    if not len(same.boxes) or not len(boxes):
        return torch.zeros(len(boxes), dtype=torch.bool)
    overlaps = box_iou(boxes, same.boxes)
    inside = intersection_over_area(boxes, same.boxes)
    return torch.where(same.crowd, inside, overlaps).max(dim=1).values >= NEGATIVE_IOU
