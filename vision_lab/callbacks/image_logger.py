"""Pictures and figures to look at while and after training: into TensorBoard, and as PNG files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torchvision.io import encode_png

from vision_lab.callbacks.step_logger import logged_step
from vision_lab.core.arguments import Range
from vision_lab.core.batch import Batch
from vision_lab.core.files import write_file
from vision_lab.tasks.base import Task
from vision_lab.viz.images import MAX_DRAWN

PNG_COMPRESSION_LEVEL = 2
"""Of PNG files, 0 to 9: a third of the time of the usual 6 for files a fifth larger."""


class ImageLogger(pl.Callback):
    """Draws the first pictures of each evaluation with their predictions, and the figures of the whole split.

    The PNG files lie in ``pictures/`` in the run's folder, the newest of each kind.

    Args:
        count: pictures to draw.
    """

    def __init__(self, max_images: Annotated[int, Range(ge=0, le=MAX_DRAWN)]) -> None:
        self.max_images = max_images
        self.drawn: list[Tensor] = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._collect(trainer, pl_module, outputs, batch)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._collect(trainer, pl_module, outputs, batch)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, pl_module, "test")

    def _collect(
        self, trainer: pl.Trainer, task: pl.LightningModule, predictions: Any, batch: Batch
    ) -> None:
        assert isinstance(task, Task)
        wanted = self.max_images - len(self.drawn)
        if (
            predictions is not None
            and wanted > 0
            and trainer.is_global_zero
            and not trainer.sanity_checking
        ):
            self.drawn += task.draw_predictions(batch, predictions)[:wanted]

    def _write(self, trainer: pl.Trainer, task: pl.LightningModule, split: str) -> None:
        assert isinstance(task, Task)
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        pictures: Mapping[str, Tensor] = (
            {"predictions": task.contact_sheet(self.drawn)} if self.drawn else {}
        )
        self.drawn = []
        for name, picture in {**pictures, **task.figures(split)}.items():
            log_image(trainer, picture, f"{split}/{name}", f"pictures/{split}_{name}.png")


def log_image(trainer: pl.Trainer, picture: Tensor, tag: str, name: str) -> None:
    """Write a picture (3, H, W) uint8 into a PNG file of the run's folder and, under a tag, into TensorBoard."""
    png = encode_png(picture, compression_level=PNG_COMPRESSION_LEVEL).numpy().tobytes()
    write_file(Path(trainer.default_root_dir), name, png)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            # add_image would encode the picture again, which takes longer than to draw it.
            _, height, width = picture.shape
            image = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=png
            )
            summary = Summary(value=[Summary.Value(tag=tag, image=image)])
            logger.experiment._get_file_writer().add_summary(summary, logged_step(trainer))
