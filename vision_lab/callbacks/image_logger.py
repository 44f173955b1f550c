"""Images with predictions, and charts, written as PNG files and to the loggers."""

from pathlib import Path
from typing import Annotated, Any, cast

import pytorch_lightning as pl
from torch import Tensor
from torchvision.io import encode_png

from vision_lab.callbacks.step_logger import logged_step
from vision_lab.core.arguments import Range
from vision_lab.core.batch import Batch
from vision_lab.core.files import write_file
from vision_lab.loggers.images import log_png
from vision_lab.tasks.base import Task
from vision_lab.tasks.reports.base import Report
from vision_lab.viz.images import MAX_DRAWN

FOLDER = "images"

PNG_COMPRESSION_LEVEL = 2
"""From 0 to 9; a third of the time of the default 6, for files that are a fifth larger."""


class ExampleCollector(pl.Callback):
    """Gives each batch of an evaluation to the report of the task, for its figures."""

    def on_validation_epoch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        get_report(pl_module).start("val")

    def on_test_epoch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        get_report(pl_module).start("test")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._collect(trainer, get_report(pl_module), "val", batch, outputs)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._collect(trainer, get_report(pl_module), "test", batch, outputs)

    def _collect(
        self, trainer: pl.Trainer, report: Report, split: str, batch: Batch, predictions: Any
    ) -> None:
        # A batch without readable images, and steps that predict nothing, have no predictions.
        if trainer.is_global_zero and not trainer.sanity_checking and predictions is not None:
            report.collect(split, batch, predictions)
            self.collect(report, batch, predictions)

    def collect(
        self,
        report: Report,
        batch: Batch,
        predictions: Any,
    ) -> None:
        """Do more with a batch of an evaluation; for subclasses.

        Args:
            report: the report of the task.
            batch: the batch.
            predictions: its predictions.
        """


class ImageLogger(ExampleCollector):
    """Draws the first images of each evaluation with their predictions, and the charts of a split.

    The latest PNG files of each kind are in ``images/`` in the run folder.

    Args:
        max_images: number of images to draw.
    """

    def __init__(self, max_images: Annotated[int, Range(ge=0, le=MAX_DRAWN)]) -> None:
        self.max_images = max_images
        self.drawn: list[Tensor] = []

    def collect(
        self,
        report: Report,
        batch: Batch,
        predictions: Any,
    ) -> None:
        """Draw the first images."""
        missing = self.max_images - len(self.drawn)
        if missing > 0:
            self.drawn += report.draw(batch, predictions, with_targets=True)[:missing]

    def on_validation_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        self._write(trainer, pl_module, "val")

    def on_test_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        self._write(trainer, pl_module, "test")

    def _write(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        split: str,
    ) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        task = cast(Task, pl_module)
        images = task.report.figures(split, task.results[split])
        if self.drawn:
            images = {"predictions": task.report.combine(self.drawn), **images}
        self.drawn = []
        for name, image in images.items():
            log_image(trainer, image, f"{split}/{name}", f"{FOLDER}/{split}_{name}.png")


def get_report(pl_module: pl.LightningModule) -> Report:
    """Return the report of a task."""
    return cast(Task, pl_module).report


def log_image(
    trainer: pl.Trainer,
    image: Tensor,
    tag: str,
    name: str,
) -> None:
    """Write an image to a PNG file and to all loggers that can show it.

    Args:
        trainer: the trainer, whose ``default_root_dir`` is the run folder.
        image: the image, (3, H, W) uint8.
        tag: its name for the loggers.
        name: path of the file relative to the run folder.
    """
    png = encode_png(image, compression_level=PNG_COMPRESSION_LEVEL).numpy().tobytes()
    write_file(Path(trainer.default_root_dir), name, png)
    size = (image.shape[-2], image.shape[-1])
    for logger in trainer.loggers:
        log_png(logger, png, tag, size=size, step=logged_step(trainer))
