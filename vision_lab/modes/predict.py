"""``mode=predict source=...``: what a network says of pictures, with a run's weights or published ones."""

import glob
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import Tensor
from torchvision.io import encode_png

from vision_lab import build
from vision_lab.config.resolution import Config
from vision_lab.config.validation import NO_TARGET, check_config
from vision_lab.core import console
from vision_lab.core.arguments import Range
from vision_lab.core.batch import Batch
from vision_lab.core.errors import ConfigurationError, DataError
from vision_lab.core.files import format_path, reject_link, write_csv, write_file
from vision_lab.data.formats.image_folder import EXTENSIONS, UnlabeledImages
from vision_lab.data.image_io import read_image
from vision_lab.modes import reports
from vision_lab.modes.load import load_trained_task
from vision_lab.modes.sample import sample
from vision_lab.runs.folder import Run
from vision_lab.tasks.base import SupervisedTask, Task
from vision_lab.viz.images import MAX_DRAWN

REQUIRED_GROUPS = (
    "task",
    "model",
    "head",
    "data",
    "augment",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
)


MAX_MADE = 1_000_000
"""Pictures that one command generates."""


class PredictionWriter(BasePredictionWriter):
    """Collects table rows and pictures batch by batch, and lets the task write its files.

    Args:
        folder: where the files go.
        names: what each picture's own files are called, without their ends.
        drawn: how many pictures to keep for the contact sheet.
        max_pixels: no file that was read has more.
    """

    def __init__(self, folder: Path, *, names: Sequence[str], drawn: int, max_pixels: int) -> None:
        super().__init__(write_interval="batch")
        self.max_pixels = max_pixels
        self.folder = folder
        self.names = names
        self.drawn = drawn
        self.rows: list[dict[str, str | float]] = []
        self.pictures: list[Tensor] = []

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        assert isinstance(pl_module, SupervisedTask)
        if prediction is None:  # nothing in the batch could be read
            return
        self.rows += pl_module.table_rows(batch, prediction)
        names = [self.names[sample.index] for sample in batch.samples]
        # As large as the files have them, and read only if the task draws on them.
        channels = pl_module.spec.channels
        pictures = (
            read_image(str(sample.path), channels=channels, max_pixels=self.max_pixels)
            for sample in batch.samples
        )
        pl_module.save_predictions(batch, prediction, self.folder, names=names, pictures=pictures)
        wanted = self.drawn - len(self.pictures)
        if wanted > 0:
            self.pictures += pl_module.draw_predictions(batch, prediction)[:wanted]


def predict(
    config: Config,
    folder: Path,
    *,
    drawn: Annotated[int, Range(ge=0, le=MAX_DRAWN)],
    tta: Literal["flip"] | None,
    tiles: bool,
    overlap: Annotated[float, Range(ge=0, lt=1)],
    count: Annotated[int, Range(ge=1, le=MAX_MADE)] | None,
    classes: Sequence[str] | None,
) -> None:
    """Predict on pictures; or make them, where that is what was learnt.

    Args:
        config: the run's config, or one of a model with published weights.
        folder: gets ``predictions.csv``, ``contact_sheet.png`` and what the task writes for each picture.
        drawn: how many pictures the contact sheet shows.
        tta: None, or ``flip``: the mean of what is said of a picture and of its mirror image.
        tiles: look at pictures as large as they are, part by part.
        overlap: the part of a tile's side that it shares with the next.
        count: how many pictures to make.
        classes: of which classes in turn.
    """
    if config["task"]["target_type"] == NO_TARGET:
        if tta or tiles:
            raise ConfigurationError(
                "mode.tta and mode.tiles are for pictures that are looked at: leave them out"
            )
        sample(config, folder, count=count, classes=classes, drawn=drawn)
        return
    if count is not None or classes is not None:
        raise ConfigurationError(
            "mode.num_samples and mode.class_names are for task=generate: leave them out"
        )
    files = find_images(config["source"])
    config = build.drop_datasets(config)
    reject_link(folder)
    started = time.time()
    console.silence_libraries()
    check_config(config, REQUIRED_GROUPS)
    task = (
        load_trained_task(config, Run.open(config["run"]))
        if config["run"]
        else _pretrained_task(config)
    )
    assert isinstance(task, SupervisedTask)
    if tta:
        task.enable_flip_tta()
    if tiles:
        task.enable_tiling(overlap)
    if task.spec.target_type in ("masks", "boxes"):
        config = config.updated(
            {"augment.eval": []}
        )  # what is said of a crop is not said of the picture
    data = build.data(config, task.spec)
    data.set_predict_dataset(UnlabeledImages(files), whole=tiles)
    writer = PredictionWriter(
        folder, names=output_stems(files), drawn=drawn, max_pixels=data.max_pixels
    )
    watching = [*build.callbacks(config, only=["progress"]), writer]
    # One process: a table of predictions has one writer.
    trainer = build.trainer(
        config, folder, callbacks=watching, logger=False, devices=1, num_nodes=1, strategy="auto"
    )
    trainer.predict(task, datamodule=data, return_predictions=False)
    reports.unreadable(data, folder)
    if not writer.rows:
        raise DataError("not one of the pictures can be read")
    write_csv(folder, "predictions.csv", writer.rows)
    for name, document in task.export("predict", [str(path) for path in files]).items():
        write_file(folder, f"{name}.json", json.dumps(document, ensure_ascii=False) + "\n")
    if writer.pictures:
        write_file(
            folder,
            "contact_sheet.png",
            encode_png(task.contact_sheet(writer.pictures)).numpy().tobytes(),
        )
    reports.print_table(
        "predictions", [{**row, "path": format_path(Path(str(row["path"])))} for row in writer.rows]
    )
    new = [path for path in folder.iterdir() if path.stat().st_mtime >= started]
    written = sorted(path.name + ("/" if path.is_dir() else "") for path in new)
    console.print_line(f"written to {format_path(folder)}: {', '.join(written)}")


def find_images(source: str | None) -> list[Path]:
    """The files that ``source`` names: a file, a folder with all below it, or a glob (``**`` for any folders).

    Raises:
        ConfigurationError: where there are none.
    """
    if source is None:
        raise ConfigurationError(
            "mode=predict looks at pictures: type source=<a file, a folder or a glob>"
        )
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in EXTENSIONS]
    else:
        found = [Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file()]  # noqa: PTH207 - any root
    if not found:
        what = (
            "this folder holds no pictures"
            if path.is_dir()
            else "there is no such file or folder, nor a match"
        )
        raise ConfigurationError(f"source={source}: {what}")
    return sorted(found)


def output_stems(files: Sequence[Path]) -> list[str]:
    """A name for each picture's own files: its path below the folder that all share, without its end if no two meet."""
    base = os.path.commonpath([path.absolute().parent for path in files])
    paths = [path.absolute().relative_to(base) for path in files]
    stems = [path.with_suffix("") for path in paths]
    return [str(path) for path in (stems if len(set(stems)) == len(stems) else paths)]


def _pretrained_task(config: Config) -> Task:
    """A task of a network with published weights, all of which must have come."""
    key = "model" if config["task"]["target_type"] == "labels" else "head"
    if not config[key].get("weights"):
        raise ConfigurationError(
            f"mode=predict needs a trained network: type run=<its folder>, or {key}.weights=..."
        )
    network = build.network(config, build.spec(config))
    if network.missing_keys:
        raise ConfigurationError(
            f"the weights have nothing for {', '.join(network.missing_keys)}, so its predictions would be random: they are "
            f"not for the {network.spec.num_classes} classes of data={config.choices.get('data')}; type the data they "
            "were made for (ImageNet's: data=imagenet)"
        )
    for note in network.notes:
        console.print_line(f"weights: {note}")
    return build.task(config, network)
