"""Predictions of single images, as Python objects that can be shown and saved."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """The prediction for an image.

    Attributes:
        path: path of the image file; None for an image in memory.
        output: what the task has predicted for it.
    """

    path: str | None
    output: Any = field(repr=False)
    draw: Callable[[], Tensor | None] = field(repr=False)
    """Draws the image with the prediction, (3, h, w) uint8; None if the task draws none."""

    @property
    def drawing(self) -> Image.Image:
        """The image with its prediction.

        Raises:
            ValueError: if the task draws none.
        """
        drawn = self.draw()
        if drawn is None:
            raise ValueError("this task draws no predictions: it has no report")
        return Image.fromarray(drawn.permute(1, 2, 0).cpu().numpy())

    def show(self) -> None:
        """Show the drawing: below the cell in a notebook, else in the system's viewer."""
        try:
            from IPython.core.getipython import get_ipython
            from IPython.display import display
        except ImportError:
            self.drawing.show()
            return
        if get_ipython() is None:
            self.drawing.show()
        else:
            display(self.drawing)  # type: ignore[no-untyped-call]

    def save(self, path: str | Path) -> None:
        """Save the drawing as an image file.

        Args:
            path: path of the file; its suffix determines the format.
        """
        self.drawing.save(path)

    def _repr_png_(self) -> bytes | None:
        """Return the drawing for notebooks."""
        drawn = self.draw()
        if drawn is None:
            return None
        content = io.BytesIO()
        Image.fromarray(drawn.permute(1, 2, 0).cpu().numpy()).save(content, "PNG")
        return content.getvalue()


@dataclass(frozen=True)
class ClassPrediction(Prediction):
    """The class of an image.

    Attributes:
        class_name: the most likely class.
        score: its probability.
        scores: the probability of each class, the most likely first.
    """

    class_name: str
    score: float
    scores: dict[str, float] = field(repr=False)


@dataclass(frozen=True)
class MaskPrediction(Prediction):
    """The class of each pixel.

    Attributes:
        mask: (h, w) uint8 class indices, at the size of the original image.
        class_names: the class names, in the order of the indices.
    """

    mask: Tensor = field(repr=False)
    class_names: tuple[str, ...]

    @property
    def fractions(self) -> dict[str, float]:
        """The fraction of the pixels of each class that occurs, the largest first."""
        counts = self.mask.flatten().int().bincount(minlength=len(self.class_names))
        found = {}
        for index in counts.argsort(descending=True).tolist():
            if counts[index]:
                found[self.class_names[index]] = counts[index].item() / self.mask.numel()
        return found


@dataclass(frozen=True)
class DetectedObject:
    """An object in an image.

    Attributes:
        class_name: its class.
        score: the confidence, in [0, 1].
        box: (x1, y1, x2, y2) in pixels of the original image.
    """

    class_name: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class BoxPrediction(Prediction):
    """The objects in an image.

    Attributes:
        objects: the objects, in descending order of score, down to the report's threshold.
    """

    objects: tuple[DetectedObject, ...]

    def __len__(self) -> int:
        return len(self.objects)


@dataclass(frozen=True)
class ReconstructionPrediction(Prediction):
    """A reconstructed image.

    Attributes:
        anomaly_score: mean squared error of its pixels, in [0, 1].
        errors: (H, W) squared error of each pixel, in [0, 1], at the size of the network's images.
    """

    anomaly_score: float
    errors: Tensor = field(repr=False)
