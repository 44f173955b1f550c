"""What people see of a task: drawings, charts, tables and files.

A task learns; its report shows what it has learned. Callbacks and modes talk to the report, so none
of them needs to know which task it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.batch import Batch
from vision_lab.core.spec import DataSpec
from vision_lab.tasks.reports.predictions import Prediction
from vision_lab.viz.images import grid

Row = dict[str, str | float]
"""A row of the table of predictions."""

LazyImage = Callable[[], Tensor]
"""Reads an image."""

LazyFile = tuple[str, Callable[[], bytes]]
"""The path of a file, and the function that computes its content."""


class Report:
    """The report of a task.

    The methods of this class show nothing, so that a task works without a report of its own: its
    metrics are logged and tabulated all the same.

    Args:
        spec: spec of the data.
    """

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec

    def start(self, split: str) -> None:
        """Drop the examples of a split, which are from an earlier epoch.

        Args:
            split: name of the split; "predict" for predictions.
        """

    def collect(
        self,
        split: str,
        batch: Batch,
        predictions: Any,
    ) -> None:
        """Collect what ``figures`` and ``export`` need from a batch.

        Args:
            split: name of the split; "predict" for predictions.
            batch: the batch.
            predictions: its predictions.
        """

    def enable_heat_maps(self) -> None:
        """Draw from now on the image regions that support the predicted class.

        Raises:
            ArgumentError: if the task or its network cannot show it.
        """
        raise ArgumentError("cam", True, "false: it is for task=classify")

    def draw(
        self,
        batch: Batch,
        predictions: Any,
        *,
        with_targets: bool,
    ) -> list[Tensor]:
        """Draw each image with its prediction and its target.

        Args:
            batch: the batch.
            predictions: its predictions, as returned by a step of the task.
            with_targets: whether the targets of the batch are known.

        Returns:
            Images, (3, h, w) uint8; none if this task draws none.
        """
        return []

    def combine(self, images: Sequence[Tensor]) -> Tensor:
        """Combine drawn images, at least one, to a contact sheet with a legend.

        Args:
            images: images as returned by ``draw``.

        Returns:
            The sheet, (3, H, W) uint8.
        """
        return grid(images)

    def figures(
        self,
        split: str,
        results: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Draw charts of a whole split, and forget its examples.

        Args:
            split: name of the split.
            results: its metrics.

        Returns:
            Charts by name, (3, h, w) uint8.
        """
        return {}

    def draw_samples(
        self,
        samples: Tensor,
        labels: Tensor | None,
    ) -> Tensor | None:
        """Draw images that were generated without data.

        Args:
            samples: (N, C, H, W) uint8.
            labels: (N,) int64 labels of a conditional generator; None without classes.

        Returns:
            The drawing, (3, H, W) uint8; None if this task draws none.
        """
        return None

    def per_class(self, results: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
        """Return metrics by class name.

        Args:
            results: all metrics of a split.
        """
        return {}

    def charts(
        self,
        monitor: str,
        *,
        added: Sequence[str] = (),
    ) -> dict[str, list[str]]:
        """Return the curves to show together in TensorBoard, by title of the chart.

        Args:
            monitor: name of the monitored metric, without its split.
            added: names of metrics that the user has added to those of the task.
        """
        names = dict.fromkeys(["loss", monitor])
        charts = {name: [f"train/{name}", f"val/{name}"] for name in names}
        return charts | {name: [f"val/{name}"] for name in added}

    def to_results(self, batch: Batch, predictions: Any) -> list[Prediction]:
        """Convert predictions to objects for use in Python.

        Args:
            batch: the batch.
            predictions: its predictions, as returned by ``predict_step`` of the task.

        Returns:
            One for each image.
        """
        drawers = self.make_drawers(batch, predictions)
        rows = zip(batch.samples, predictions, drawers, strict=True)
        return [Prediction(sample.path, output, draw) for sample, output, draw in rows]

    def make_drawers(self, batch: Batch, predictions: Any) -> list[Callable[[], Tensor | None]]:
        """Return for each image a function that draws it with its prediction when it is called.

        Args:
            batch: the batch.
            predictions: its predictions.
        """
        return [
            partial(self._draw_one, batch, predictions, index)
            for index in range(len(batch.samples))
        ]

    def _draw_one(self, batch: Batch, predictions: Any, index: int) -> Tensor | None:
        row = slice(index, index + 1)
        images, targets = batch.images[row], batch.targets[row]
        drawn = self.draw(
            Batch(images, targets, batch.samples[row]), predictions[row], with_targets=False
        )
        if drawn:
            return self.combine(drawn)
        return None

    def table_rows(
        self,
        batch: Batch,
        predictions: Any,
    ) -> list[Row]:
        """Return rows of the table of predictions, all with the same columns.

        Args:
            batch: the batch.
            predictions: its predictions.

        Returns:
            One or more rows for each image.
        """
        return [{"path": sample.path or str(sample.index)} for sample in batch.samples]

    def render_predictions(
        self,
        batch: Batch,
        predictions: Any,
        *,
        names: Sequence[str],
        images: Sequence[LazyImage],
    ) -> list[LazyFile]:
        """Return the files of each image, if predictions are more than table rows.

        Args:
            batch: the batch.
            predictions: its predictions.
            names: file name of each image's predictions, without suffix.
            images: functions that read the images at their original size, (C, h, w) uint8.

        Returns:
            The path of each file in the output folder, and the function that computes its content,
            which is called in another thread.
        """
        return []

    def export(
        self, split: str, results: Mapping[str, Tensor], paths: Sequence[str]
    ) -> dict[str, Any]:
        """Return results of a whole split for other programs.

        Args:
            split: name of the split; "predict" for predictions.
            results: its metrics; empty for predictions.
            paths: paths of its images; empty if they have none.

        Returns:
            Values that can be written as JSON, by file name without suffix.
        """
        return {}


ReportFactory = Callable[[DataSpec], Report]
"""Creates the report of a task."""
