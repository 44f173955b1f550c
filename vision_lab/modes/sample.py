"""``mode=predict run=<a run of task=generate>``: pictures made of noise, any of which can be made again."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchvision.io import encode_png

from vision_lab import build
from vision_lab.config.resolution import Config
from vision_lab.config.validation import check_config
from vision_lab.core import console
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import delete_file, format_path, reject_link, write_file
from vision_lab.core.text import summarize_names
from vision_lab.modes.load import load_trained_task
from vision_lab.runs.folder import Run
from vision_lab.runs.naming import safe_dir_name
from vision_lab.tasks.generation import GenerationTask, Latents
from vision_lab.viz.images import tiled

REQUIRED_GROUPS = ("task", "model", "head", "data", "trainer", "callbacks")

DEFAULT_NUM_SAMPLES = 64
"""Pictures that are made where nothing is said."""

UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile)
"""What NumPy raises for an archive that it did not write."""

MAX_LATENT_BYTES = 2_000_000_000

SHEET_COLUMNS = 8
"""Of the contact sheet."""


class SampleWriter(BasePredictionWriter):
    """Writes a PNG file for each picture, in the order of their noise.

    Args:
        folder: of the command.
        name: of the folder in it that the files go to.
        drawn: how many pictures to keep for the contact sheet.
    """

    def __init__(self, folder: Path, name: str, *, drawn: int) -> None:
        super().__init__(write_interval="batch")
        self.folder = folder
        self.name = name
        self.drawn = drawn
        self.count = 0
        self.kept: list[Tensor] = []

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        for picture in prediction.cpu():
            png = encode_png(_png_channels(picture)).numpy().tobytes()
            write_file(self.folder, f"{self.name}/{self.count:05d}.png", png)
            if len(self.kept) < self.drawn:
                self.kept.append(picture)
            self.count += 1


def sample(
    config: Config, folder: Path, *, count: int | None, classes: Sequence[str] | None, drawn: int
) -> None:
    """Make pictures with a trained generator.

    Picture k of a seed is the same however many are made. With ``source=<a latents.npz>`` its pictures are made again.

    Args:
        config: the run's config.
        folder: gets a folder for the seed, with ``samples/``, ``contact_sheet.png`` and ``latents.npz``.
        count: how many; None: ``COUNT``.
        classes: of which classes in turn; None: of all, if the pair takes classes.
        drawn: how many pictures the contact sheet shows.
    """
    if config["run"] is None:
        raise ConfigurationError("mode=predict needs a trained generator: type run=<its folder>")
    if config["source"] and (count is not None or classes is not None):
        raise ConfigurationError(
            "mode.num_samples and mode.class_names: the file of source= says both: leave them out"
        )
    count = DEFAULT_NUM_SAMPLES if count is None else count
    reject_link(folder)
    console.silence_libraries()
    check_config(config, REQUIRED_GROUPS)
    if "feature_extractor" in config["task"]:
        config = config.updated(
            {"task.feature_extractor": "fashion_mini"}
        )  # nothing is measured: the run's need not be there
    task = load_trained_task(config, Run.open(config["run"]))
    if not isinstance(task, GenerationTask):
        raise ConfigurationError(
            f"mode=predict makes pictures by task=generate, not by {type(task).__name__}"
        )
    seed = config["seed"]
    if config["source"]:
        file = Path(config["source"]).expanduser()
        noise, seed = load_latents(file, task)
        name = safe_dir_name(f"{file.absolute().parent.name}-{file.stem}-again")
    else:
        chosen = _labels(classes, task)
        labels = [chosen[place % len(chosen)] for place in range(count)] if chosen else None
        noise = task.sample_latents(range(count), labels=labels)
        suffix = "_" + "+".join(task.spec.class_names[label] for label in chosen) if chosen else ""
        name = safe_dir_name(f"seed-{seed}{suffix}")
    writer = SampleWriter(folder, f"{name}/samples", drawn=drawn)
    watching = [*build.callbacks(config, only=["progress"]), writer]
    trainer = build.trainer(
        config, folder, callbacks=watching, logger=False, devices=1, num_nodes=1, strategy="auto"
    )
    tensors = [each.cpu() for each in noise if each is not None]
    loader = DataLoader(TensorDataset(*tensors), batch_size=config["data"]["batch_size"])
    trainer.predict(task, dataloaders=loader, return_predictions=False)
    for path in (folder / writer.name).glob("*.png"):  # of an earlier command that made more
        if path.stem.isdigit() and int(path.stem) >= writer.count:
            delete_file(folder, f"{writer.name}/{path.name}")
    write_file(folder, f"{name}/latents.npz", _archive(noise, seed=seed))
    if writer.kept:
        sheet = tiled(torch.stack(writer.kept), columns=SHEET_COLUMNS)
        write_file(folder, f"{name}/contact_sheet.png", encode_png(sheet).numpy().tobytes())
    sheet_name = ", contact_sheet.png" if writer.kept else ""
    console.print_line(
        f"{writer.count} pictures written to {format_path(folder / name)}: samples/, latents.npz{sheet_name}"
    )


def load_latents(file: Path, task: GenerationTask) -> tuple[Latents, int | None]:
    """What the pictures of a ``latents.npz`` are made of, and the seed that it was drawn by, where it says so.

    Raises:
        ConfigurationError: where the file is none, or is for another network.
    """
    try:
        _check_archive(file)
        with np.load(file, allow_pickle=False) as archive:
            latents = torch.from_numpy(archive["latents"]).float()
            labels = torch.from_numpy(archive["labels"]).long() if "labels" in archive else None
            seed = int(archive["seed"]) if "seed" in archive else None
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        zipfile.BadZipFile,
    ) as error:
        raise ConfigurationError(
            f"source={file}: no latents.npz of an earlier mode=predict: {error}"
        ) from error
    if latents.ndim != 2 or latents.shape[1] != task.pair.latent_dim or not len(latents):
        raise ConfigurationError(
            f"source={file}: holds latents of shape {list(latents.shape)}, the network takes [count,{task.pair.latent_dim}]"
        )
    if not task.pair.conditional:
        return Latents(latents, None), seed
    last = task.spec.num_classes - 1
    if (
        labels is None
        or labels.shape != latents.shape[:1]
        or not 0 <= labels.min() <= labels.max() <= last
    ):
        raise ConfigurationError(
            f"source={file}: does not hold a class from 0 to {last} for each picture"
        )
    return Latents(latents, labels), seed


def _check_archive(file: Path) -> None:
    """Refuse an archive whose arrays would fill the memory: their headers may claim any size.

    Raises:
        ValueError: if an array is larger than what the file holds, or than any that is generated from.
    """
    with zipfile.ZipFile(file) as archive:
        for part in archive.infolist():
            with archive.open(part) as stream:
                version = np.lib.format.read_magic(stream)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read(stream)
            size = math.prod(shape) * dtype.itemsize
            if size > part.file_size or size > MAX_LATENT_BYTES:
                raise ValueError(f"{part.filename} is said to hold {list(shape)} numbers")


def _labels(classes: Sequence[str] | None, task: GenerationTask) -> list[int] | None:
    """The labels of named classes."""
    names = task.spec.class_names
    if classes is None:
        return None
    if not task.pair.conditional:
        raise ConfigurationError(
            "mode.class_names: this generator takes no classes (model.conditioning=null): leave it out"
        )
    listed = [str(name) for name in classes] if isinstance(classes, Sequence) else [str(classes)]
    listed = [str(classes)] if isinstance(classes, str) else listed
    unknown = [name for name in listed if name not in names]
    if unknown or not listed:
        raise ConfigurationError(
            f"mode.class_names=[{','.join(listed)}]: type a list of {summarize_names(names, 12)}"
        )
    return [names.index(name) for name in listed]


def _archive(noise: Latents, *, seed: int | None) -> bytes:
    content = io.BytesIO()
    arrays = {"latents": noise.latents.cpu().numpy()} | (
        {} if seed is None else {"seed": np.array(seed)}
    )
    arrays |= {} if noise.labels is None else {"labels": noise.labels.cpu().numpy()}
    np.savez(content, allow_pickle=False, **arrays)
    return content.getvalue()


def _png_channels(picture: Tensor) -> Tensor:
    """What a PNG file holds: of other numbers of channels than 1 and 3, the first three or one."""
    return (
        picture
        if picture.shape[0] in (1, 3)
        else picture[:3]
        if picture.shape[0] > 3
        else picture[:1]
    )
