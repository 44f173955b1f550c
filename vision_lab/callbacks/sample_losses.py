"""The loss of each image after training, by which wrong labels are found."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torchvision.io import encode_jpeg

from vision_lab.core.arguments import Count
from vision_lab.core.batch import Batch
from vision_lab.core.console import print_line
from vision_lab.core.files import write_csv, write_file
from vision_lab.core.sample_files import (
    LOSSES_FILENAME,
    NUM_THUMBNAILS,
    THUMBNAIL_COLUMNS,
    THUMBNAILS_FILENAME,
)
from vision_lab.core.spec import Split
from vision_lab.data.module import SPLITS, DataModule
from vision_lab.tasks.classification import ClassificationTask
from vision_lab.tasks.reports.worst_samples import WorstSamples
from vision_lab.viz.images import make_thumbnails

THUMBNAIL_SIDE = 96
"""Side of a thumbnail in pixels."""

JPEG_QUALITY = 85

LIMITS = ("limit_train_batches", "limit_val_batches", "limit_test_batches")

Row = dict[str, str | float]

Key = tuple[float, int, int]
"""By which rows are sorted: minus the loss, rank of the split, index in the split."""


class Losses(NamedTuple):
    """What a process has found.

    Attributes:
        rows: the row of each sample.
        images: thumbnails of those with the highest losses, (3, side, side) uint8.
    """

    rows: list[tuple[Key, Row]]
    images: list[tuple[Key, Tensor]]


class SampleLosses(Callback):
    """Writes the loss of each image of all splits, without augmentation, after the test.

    ``sample_losses.csv`` lists the highest losses first, and ``images/high_losses.jpg`` shows the
    first images of it, row by row. Runs that train or test on a part of the data only, such as
    those of ``debug=fast``, do not have these files.

    Args:
        max_samples: splits with more images are left out, because it takes a pass over them.
    """

    def __init__(self, max_samples: Count) -> None:
        self.max_samples = max_samples
        self.seconds = 0.0
        """Duration of the pass, which is no training."""

    def on_test_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        limits = [getattr(trainer, name) for name in LIMITS]
        is_whole = all(isinstance(limit, float) and limit == 1 for limit in limits)  # 1: one batch
        if not (isinstance(pl_module, ClassificationTask) and is_whole):
            return
        data = cast(DataModule, trainer.datamodule)  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            print_line("computing the loss of each image")
        started = time.monotonic()
        parts = _gather(self._evaluate(pl_module, data))
        self.seconds = time.monotonic() - started
        if not trainer.is_global_zero or not any(part.rows for part in parts):
            return
        rows = sorted(chain.from_iterable(part.rows for part in parts), key=itemgetter(0))
        images = sorted(chain.from_iterable(part.images for part in parts), key=itemgetter(0))
        folder = Path(trainer.default_root_dir)
        write_csv(folder, LOSSES_FILENAME, [row for _, row in rows])
        drawn = [image for _, image in images[:NUM_THUMBNAILS]]
        thumbnails = make_thumbnails(drawn, side=THUMBNAIL_SIDE, columns=THUMBNAIL_COLUMNS)
        jpeg = encode_jpeg(thumbnails, quality=JPEG_QUALITY).numpy().tobytes()
        write_file(folder, THUMBNAILS_FILENAME, jpeg)

    def _evaluate(self, task: ClassificationTask, data: DataModule) -> Losses:
        """Compute the losses of the samples that this process reads."""
        rows: list[tuple[Key, Row]] = []
        drawn: WorstSamples[tuple[Key, Tensor]] = WorstSamples(NUM_THUMBNAILS)
        for rank, split in enumerate(SPLITS):
            if len(data.splits[split]) > self.max_samples:
                continue
            origins = data.list_origins(split)
            for batch, probabilities in _predict(task, data, split):
                for row, index, image in _describe(batch, probabilities, task):
                    loss = cast(float, row["loss"])
                    key = (-loss, rank, index)
                    rows.append((key, {"split": split, "sample": origins[index], **row}))
                    drawn.offer(loss, len(rows), partial(_keep, key, image))
        return Losses(rows, drawn.sorted_samples())


def _predict(
    task: ClassificationTask, data: DataModule, split: Split
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield each batch of a split with its probabilities."""
    with torch.inference_mode():
        for cpu_batch in data.eval_loader(split):
            if not cpu_batch.samples:  # no image of the batch is readable
                continue
            batch = data.transfer_batch_to_device(cpu_batch, task.device, 0)
            yield batch, task.decode(task(batch.images))


def _describe(
    batch: Batch, probabilities: Tensor, task: ClassificationTask
) -> Iterator[tuple[Row, int, Tensor]]:
    """Yield the row, the index and the image of each sample of a batch."""
    names = task.spec.class_names
    confidences, predicted = probabilities.max(dim=1)
    of_target = probabilities.gather(1, batch.targets.clamp(min=0)[:, None])[:, 0]
    losses = -of_target.clamp(min=torch.finfo(of_target.dtype).tiny).log()
    losses = losses.nan_to_num(nan=math.inf)  # NaN cannot be sorted
    columns: Any = zip(
        batch.samples,
        batch.images,
        batch.targets.tolist(),
        predicted.tolist(),
        confidences.tolist(),
        losses.tolist(),
        strict=True,
    )
    for sample, image, target, label, confidence, loss in columns:
        row: Row = {
            "target": names[target],
            "predicted": names[label],
            "confidence": round(confidence, 6),
            "loss": round(loss, 6),
        }
        yield row, sample.index, image


def _keep(key: Key, image: Tensor) -> tuple[Key, Tensor]:
    """Keep a thumbnail of an image, which is small enough to be sent to another process."""
    return key, make_thumbnails([image], side=THUMBNAIL_SIDE, columns=1)


def _gather(found: Losses) -> list[Losses]:
    """Return what each process has found, in all of them."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [found]
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, found)
    return gathered
