"""``mode=predict run=<a run of task=generate>``: generate images, reproducibly."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from vision_lab import build
from vision_lab.config.resolution import Config
from vision_lab.config.validation import check_config
from vision_lab.core import console
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import delete_file, expand_home, format_path, reject_link, write_file
from vision_lab.core.text import summarize_names
from vision_lab.modes.load import load_trained_task
from vision_lab.run_folders.folder import Run
from vision_lab.run_folders.naming import safe_dir_name
from vision_lab.tasks.latents import Latents
from vision_lab.tasks.sampling import SamplingTask
from vision_lab.viz.images import tile_images, write_png

REQUIRED_GROUPS = ("task", "model", "head", "loss", "data", "trainer", "callbacks")

DEFAULT_NUM_SAMPLES = 64

LOAD_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
)
"""Exceptions that NumPy raises for archives that it did not write."""

MAX_LATENT_BYTES = 2_000_000_000

SHEET_COLUMNS = 8
"""Images in each row of the contact sheet."""


class SampleWriter(BasePredictionWriter):
    """Writes a PNG file for each generated image, in the order of the latents.

    Args:
        folder: output folder of the command.
        name: folder of the files, relative to ``folder``.
        num_drawn: number of images to keep for the contact sheet.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        num_drawn: int,
    ) -> None:
        super().__init__(write_interval="batch")
        self.folder = folder
        self.name = name
        self.max_sheet_images = num_drawn
        self.num_written = 0
        self.sheet_images: list[Tensor] = []

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
        for image in prediction.cpu():
            name = f"{self.name}/{self.num_written:05d}.png"
            write_png(self.folder, name, _to_png_channels(image))
            if len(self.sheet_images) < self.max_sheet_images:
                self.sheet_images.append(image)
            self.num_written += 1


def sample(
    config: Config,
    folder: Path,
    *,
    num_samples: int | None,
    class_names: Sequence[str] | None,
    num_drawn: int,
) -> None:
    """Generate images with a trained generator.

    Image k of a seed is the same for any number of images. With ``source=<a latents.npz>`` the
    images of an earlier command are generated again.

    Args:
        config: the run's config.
        folder: output folder: a subfolder for the seed, with ``samples/``, ``contact_sheet.png``
            and ``latents.npz``.
        num_samples: number of images; None for ``DEFAULT_NUM_SAMPLES``.
        class_names: classes to generate, in turn; None for all classes of a conditional generator.
        num_drawn: number of images on the contact sheet.

    Raises:
        ConfigurationError: if the config or the file of latents is invalid.
    """
    if config["run"] is None:
        raise ConfigurationError("mode=predict requires a trained generator: type run=<its folder>")
    if config["source"] and (num_samples is not None or class_names is not None):
        raise ConfigurationError(
            "the file of source= determines mode.num_samples and mode.class_names: omit them"
        )
    reject_link(folder)
    console.silence_libraries()
    check_config(config, REQUIRED_GROUPS)
    config = config.updated({"features": None})  # not used here, and those of the run may be absent
    task = cast(SamplingTask, load_trained_task(config, Run.open(config["run"])))
    seed: int | None = config["seed"]
    if config["source"]:
        file = expand_home(config["source"])
        latents, seed = load_latents(file, task)
        name = f"{file.absolute().parent.name}-{file.stem}-again"
    else:
        labels = _get_labels(class_names, task)
        latents = _sample_latents(task, num_samples or DEFAULT_NUM_SAMPLES, labels)
        classes = "+".join(task.spec.class_names[label] for label in labels or ())
        name = f"seed-{seed}_{classes}" if labels else f"seed-{seed}"
    _write_samples(config, folder, task, latents, safe_dir_name(name), seed, num_drawn=num_drawn)


def _write_samples(
    config: Config,
    folder: Path,
    task: SamplingTask,
    latents: Latents,
    name: str,
    seed: int | None,
    *,
    num_drawn: int,
) -> None:
    """Generate images from latents and write them to a subfolder."""
    writer = SampleWriter(folder, f"{name}/samples", num_drawn=num_drawn)
    _run_generation(config, folder, task, latents, writer)
    write_file(folder, f"{name}/latents.npz", _to_archive(latents, seed=seed))
    sheet_name = ""
    if writer.sheet_images:
        sheet = tile_images(torch.stack(writer.sheet_images), columns=SHEET_COLUMNS)
        write_png(folder, f"{name}/contact_sheet.png", sheet)
        sheet_name = ", contact_sheet.png"
    console.print_line(
        f"{writer.num_written} images written to {format_path(folder / name)}: samples/, "
        f"latents.npz{sheet_name}"
    )


def _sample_latents(task: SamplingTask, num_samples: int, labels: Sequence[int] | None) -> Latents:
    if labels:
        cycled = [labels[index % len(labels)] for index in range(num_samples)]
        return task.sample_latents(range(num_samples), labels=cycled)
    return task.sample_latents(range(num_samples), labels=None)


def _run_generation(
    config: Config, folder: Path, task: SamplingTask, latents: Latents, writer: SampleWriter
) -> None:
    callbacks = [*build.callbacks(config, only=["progress_bar"]), writer]
    trainer = build.trainer(
        config, folder, callbacks=callbacks, logger=False, devices=1, num_nodes=1, strategy="auto"
    )
    tensors = []
    for tensor in latents:
        if tensor is not None:
            tensors.append(tensor.cpu())
    loader = DataLoader(TensorDataset(*tensors), batch_size=config["data"]["batch_size"])
    trainer.predict(task, dataloaders=loader, return_predictions=False)
    _delete_leftover_images(folder, writer)


def _delete_leftover_images(folder: Path, writer: SampleWriter) -> None:
    """Delete the images of an earlier command with the same seed that generated more of them."""
    for path in (folder / writer.name).glob("*.png"):
        if path.stem.isdigit() and int(path.stem) >= writer.num_written:
            delete_file(folder, f"{writer.name}/{path.name}")


def load_latents(file: Path, task: SamplingTask) -> tuple[Latents, int | None]:
    """Load the ``latents.npz`` of an earlier command.

    Args:
        file: path of the archive.
        task: the task that generates images from them.

    Returns:
        The latents, and the seed they were sampled with if the archive contains it.

    Raises:
        ConfigurationError: if the file is invalid, or was made for another network.
    """
    try:
        _check_archive(file)
        with np.load(file, allow_pickle=False) as archive:
            latents = torch.from_numpy(archive["latents"]).float()
            labels = torch.from_numpy(archive["labels"]).long() if "labels" in archive else None
            seed = int(archive["seed"]) if "seed" in archive else None
    except LOAD_ERRORS as error:
        raise ConfigurationError(
            f"source={file}: this is not a latents.npz written by mode=predict: {error}"
        ) from error
    if latents.ndim != 2 or latents.shape[1] != task.latent_dim or not len(latents):
        raise ConfigurationError(
            f"source={file}: the latents have shape {list(latents.shape)}, but the network "
            f"requires [num_samples,{task.latent_dim}]"
        )
    if not task.conditional:
        return Latents(latents, None), seed
    if labels is None or not _are_valid_labels(labels, len(latents), task.spec.num_classes):
        raise ConfigurationError(
            f"source={file}: there is not a label from 0 to {task.spec.num_classes - 1} for each "
            "image"
        )
    return Latents(latents, labels), seed


def _are_valid_labels(
    labels: Tensor,
    num_samples: int,
    num_classes: int,
) -> bool:
    if labels.shape != (num_samples,):
        return False
    return bool(labels.min() >= 0 and labels.max() < num_classes)


def _check_archive(file: Path) -> None:
    """Reject an archive whose headers claim arrays that are larger than the file, or than memory.

    Raises:
        ValueError: naming the array.
    """
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                if np.lib.format.read_magic(stream) == (1, 0):
                    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                else:
                    shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
            size = math.prod(shape) * dtype.itemsize
            if size > member.file_size or size > MAX_LATENT_BYTES:
                raise ValueError(f"{member.filename} claims to contain {list(shape)} numbers")


def _get_labels(class_names: Sequence[str] | None, task: SamplingTask) -> list[int] | None:
    """Return the labels of classes given by name.

    Raises:
        ConfigurationError: if the generator is unconditional, or does not have a class.
    """
    if class_names is None:
        return None
    known = task.spec.class_names
    if not task.conditional:
        raise ConfigurationError(
            "mode.class_names: this generator is unconditional (model.conditioning=null): omit it"
        )
    is_list = isinstance(class_names, Sequence) and not isinstance(class_names, str)
    names = [str(name) for name in class_names] if is_list else [str(class_names)]
    if not names or any(name not in known for name in names):
        raise ConfigurationError(
            f"mode.class_names=[{','.join(names)}]: type a list of {summarize_names(known, 12)}"
        )
    return [known.index(name) for name in names]


def _to_archive(latents: Latents, *, seed: int | None) -> bytes:
    arrays = {"latents": latents.latents.cpu().numpy()}
    if seed is not None:
        arrays["seed"] = np.array(seed)
    if latents.labels is not None:
        arrays["labels"] = latents.labels.cpu().numpy()
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    return content.getvalue()


def _to_png_channels(image: Tensor) -> Tensor:
    """Keep the first three channels of an image, or the first one, as PNG requires."""
    channels = image.shape[0]
    if channels in (1, 3):
        return image
    if channels > 3:
        return image[:3]
    return image[:1]
