"""``mode=predict source=...``: predict images with a run or with pretrained weights."""

import glob
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import Tensor

from vision_lab import build
from vision_lab.config.instantiation import name_arguments
from vision_lab.config.resolution import Config
from vision_lab.config.validation import check_config
from vision_lab.core import console
from vision_lab.core.arguments import Range
from vision_lab.core.batch import Batch
from vision_lab.core.errors import ConfigurationError, DataError
from vision_lab.core.files import (
    expand_home,
    format_path,
    reject_link,
    write_csv,
    write_file,
    write_json,
)
from vision_lab.core.machine import available_cores
from vision_lab.data.formats.image_folder import EXTENSIONS, UnlabeledImages
from vision_lab.data.image_io import read_image
from vision_lab.data.module import DataModule
from vision_lab.modes import reports
from vision_lab.modes.load import load_trained_task
from vision_lab.modes.sample import sample
from vision_lab.run_folders.folder import Run
from vision_lab.tasks.base import Task
from vision_lab.viz.images import MAX_DRAWN, write_png

REQUIRED_GROUPS = "task model head loss data augment optimizer scheduler trainer callbacks".split()

MAX_WRITERS = 8
"""Maximum number of threads that draw and write files."""

MAX_UNFINISHED = 64
"""Maximum number of files that wait for these threads."""

MAX_GENERATED = 1_000_000
"""Maximum number of images that one command generates."""


class PredictionWriter(BasePredictionWriter):
    """Collects table rows and drawn images by batch, and writes the report's files.

    While the network computes, other threads read the original images, draw on them and encode
    them.

    Args:
        folder: output folder.
        names: file name of each image's predictions, without suffix.
        num_drawn: number of images to draw for the contact sheet.
        max_pixels: maximum number of pixels of an image.
    """

    def __init__(
        self, folder: Path, *, names: Sequence[str], num_drawn: int, max_pixels: int
    ) -> None:
        super().__init__(write_interval="batch")
        self.max_pixels = max_pixels
        self.folder = folder
        self.names = names
        self.max_sheet_images = num_drawn
        self.rows: list[dict[str, str | float]] = []
        self.sheet_images: list[Tensor] = []
        self.pool = ThreadPoolExecutor(min(MAX_WRITERS, available_cores()))
        self.unfinished: deque[Future[None]] = deque()
        """Files that are being written, the oldest first."""

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
        if prediction is None:  # no image of the batch is readable
            return
        report = cast(Task, pl_module).report
        report.collect("predict", batch, prediction)
        self.rows += report.table_rows(batch, prediction)
        self._write_files(cast(Task, pl_module), batch, prediction)
        missing = self.max_sheet_images - len(self.sheet_images)
        if missing > 0:
            drawn = report.draw(batch, prediction, with_targets=False)
            self.sheet_images += drawn[:missing]

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the last files."""
        while self.unfinished:
            self.unfinished.popleft().result()
        self.pool.shutdown()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write no further files."""
        self.pool.shutdown(cancel_futures=True)

    def _write_files(self, task: Task, batch: Batch, prediction: Any) -> None:
        names = [self.names[each.index] for each in batch.samples]
        read = partial(read_image, channels=task.spec.channels, max_pixels=self.max_pixels)
        images = [partial(read, str(each.path)) for each in batch.samples]
        files = task.report.render_predictions(batch, prediction, names=names, images=images)
        for name, render in files:
            self.unfinished.append(self.pool.submit(_render_file, self.folder, name, render))
        while len(self.unfinished) > MAX_UNFINISHED:
            self.unfinished.popleft().result()


def _render_file(folder: Path, name: str, render: Callable[[], bytes]) -> None:
    write_file(folder, name, render())


def predict(
    config: Config,
    folder: Path,
    *,
    num_drawn: Annotated[int, Range(ge=0, le=MAX_DRAWN)],
    tta: Literal["flip"] | None,
    tiles: bool,
    tile_overlap: Annotated[float, Range(ge=0, lt=1)],
    cam: bool,
    num_samples: Annotated[int, Range(ge=1, le=MAX_GENERATED)] | None,
    class_names: Sequence[str] | None,
) -> None:
    """Predict images, or generate them with a run of ``task=generate``.

    Args:
        config: the run's config, or that of a model with pretrained weights.
        folder: output folder: ``predictions.csv``, ``contact_sheet.png`` and the files that the
            task writes for each image.
        num_drawn: number of images on the contact sheet.
        tta: test-time augmentation: None, or ``flip`` to average the predictions of each image and
            its mirror image.
        tiles: whether to predict images at their original size, tile by tile.
        tile_overlap: overlap of adjacent tiles, as a fraction of their side.
        cam: whether to show the image regions that support its class, beside it on the contact
            sheet and in ``cam/``.
        num_samples: number of images to generate.
        class_names: classes to generate, in turn.

    Raises:
        ConfigurationError: if the config is invalid.
        DataError: if no image can be read.
    """
    check_config(config, ["task"])
    if build.task_class(config).generates_images:
        if tta or tiles or cam:
            raise ConfigurationError(
                "mode.tta, mode.tiles and mode.cam are for images to predict, not to generate: "
                "omit them"
            )
        sample(
            config,
            folder,
            num_samples=num_samples,
            class_names=class_names,
            num_drawn=num_drawn,
        )
        return
    if num_samples is not None or class_names is not None:
        raise ConfigurationError(
            "mode.num_samples and mode.class_names are for tasks that generate images: omit them"
        )
    files = find_images(config["source"])
    config = build.drop_datasets(config)
    reject_link(folder)
    started = time.time()
    console.silence_libraries()
    check_config(config, REQUIRED_GROUPS)
    task = _load_task(config, tta=tta, tiles=tiles, tile_overlap=tile_overlap)
    if cam:
        with name_arguments("mode"):
            task.report.enable_heat_maps()
    _predict_files(config, folder, task, files, num_drawn=num_drawn, keep_size=tiles)
    names = _names_written_since(started, folder)
    console.print_line(f"written to {format_path(folder)}: {', '.join(names)}")


def _names_written_since(started: float, folder: Path) -> list[str]:
    names = []
    for path in sorted(folder.iterdir()):
        if path.stat().st_mtime >= started:
            names.append(f"{path.name}/" if path.is_dir() else path.name)
    return names


def _predict_files(
    config: Config,
    folder: Path,
    task: Task,
    files: Sequence[Path],
    *,
    num_drawn: int,
    keep_size: bool,
) -> None:
    """Predict image files and write the results."""
    data = build.prediction_data(config, task.spec, UnlabeledImages(files), keep_size=keep_size)
    writer = PredictionWriter(
        folder, names=output_stems(files), num_drawn=num_drawn, max_pixels=data.max_pixels
    )
    _run_prediction(config, folder, task, data, writer)
    reports.report_unreadable(data, folder)
    if not writer.rows:
        raise DataError("none of the images can be read")
    _write_results(folder, task, files, writer)


def find_images(source: str | None, *, prefix: str = "source=") -> list[Path]:
    """Find the image files that ``source=`` refers to.

    Args:
        source: a file, a folder (searched recursively) or a glob (``**`` matches any folders).
        prefix: what was typed before the path, for errors.

    Returns:
        The files, sorted.

    Raises:
        ConfigurationError: if there are none.
    """
    if source is None:
        raise ConfigurationError(
            "mode=predict requires images: type source=<a file, a folder or a glob>"
        )
    path = expand_home(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        files = []
        for file in path.rglob("*"):
            if file.suffix.lower() in EXTENSIONS:
                files.append(file)
        problem = "this folder contains no images"
    else:
        files = [Path(file) for file in glob.glob(str(path), recursive=True)]  # noqa: PTH207 - any root
        problem = "there is no such file or folder, and no match"
    existing = []
    for file in files:
        if file.is_file():
            existing.append(file)
    files = existing
    if not files:
        raise ConfigurationError(f"{prefix}{source}: {problem}")
    return sorted(files)


def output_stems(files: Sequence[Path]) -> list[str]:
    """Return a distinct file name for the predictions of each image.

    Args:
        files: the image files.

    Returns:
        Paths relative to the common folder of all files, without suffix if they stay distinct.
    """
    folder = os.path.commonpath([path.absolute().parent for path in files])
    paths = [path.absolute().relative_to(folder) for path in files]
    stems = [path.with_suffix("") for path in paths]
    is_distinct = len(set(stems)) == len(stems)
    return [str(path) for path in (stems if is_distinct else paths)]


def _load_task(
    config: Config,
    *,
    tta: str | None,
    tiles: bool,
    tile_overlap: float,
) -> Task:
    if config["run"]:
        task = load_trained_task(config, Run.open(config["run"]))
    else:
        task = _pretrained_task(config)
    with name_arguments("mode"):
        if tta:
            task.enable_flip_tta()
        if tiles:
            task.enable_tiling(tile_overlap)
    return task


def _pretrained_task(config: Config) -> Task:
    """Build a task whose network has pretrained weights for all its parameters."""
    key = "head" if "weights" in config["head"] else "model"
    if not config[key].get("weights"):
        raise ConfigurationError(
            f"mode=predict requires a trained network: type run=<its folder>, or {key}.weights=..."
        )
    network = build.network(config, build.spec(config))
    if network.missing_keys:
        raise ConfigurationError(
            f"the weights contain nothing for {', '.join(network.missing_keys)}, so predictions "
            f"would be random: they do not fit the {network.spec.num_classes} classes of "
            f"data={config.choices.get('data')}; type the data they were made for (for ImageNet, "
            "data=imagenet)"
        )
    for note in network.notes:
        console.print_line(f"weights: {note}")
    return build.task(config, network)


def _run_prediction(
    config: Config,
    folder: Path,
    task: Task,
    data: DataModule,
    writer: PredictionWriter,
) -> None:
    """Predict all images in a single process: the table of predictions has one writer."""
    callbacks = [*build.callbacks(config, only=["progress_bar"]), writer]
    trainer = build.trainer(
        config, folder, callbacks=callbacks, logger=False, devices=1, num_nodes=1, strategy="auto"
    )
    trainer.predict(task, datamodule=data, return_predictions=False)


def _write_results(
    folder: Path, task: Task, files: Sequence[Path], writer: PredictionWriter
) -> None:
    write_csv(folder, "predictions.csv", writer.rows)
    paths = [str(path) for path in files]
    for name, content in task.report.export("predict", {}, paths).items():
        write_json(folder, f"{name}.json", content, indent=None)
    if writer.sheet_images:
        write_png(folder, "contact_sheet.png", task.report.combine(writer.sheet_images))
    rows = [{**row, "path": format_path(Path(str(row["path"])))} for row in writer.rows]
    reports.print_table("predictions", rows)
