"""Samples of a generator from the same latents after each epoch, and an animation of them."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytorch_lightning as pl
from PIL import Image

from vision_lab.callbacks.image_logger import log_image
from vision_lab.core.files import write_file
from vision_lab.data.image_io import InvalidImageError, read_image
from vision_lab.tasks.base import Task

FOLDER = "samples"

MAX_FRAMES = 120
"""Maximum number of frames of an animation; of more epochs, evenly spaced ones are shown."""

MAX_SECONDS = 12.0
"""Maximum duration of an animation, without its last frame."""

MAX_FRAME_SECONDS = 0.2
LAST_FRAME_SECONDS = 2.0

MAX_FRAME_PIXELS = 10_000_000
"""Maximum number of pixels of an image that is read for an animation."""


class SampleLogger(pl.Callback):
    """Draws samples before training and after each epoch.

    They are written to TensorBoard (``samples``) and to ``samples/epoch=003.png``; after the test
    all of them are combined to ``samples/epochs.gif``.
    """

    def on_train_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        if trainer.global_step == 0:
            _draw(trainer, pl_module, epoch=0)

    def on_train_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        _draw(trainer, pl_module, epoch=trainer.current_epoch + 1)

    def on_test_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        run_folder = Path(trainer.default_root_dir)
        paths = [run_folder / _filename(epoch) for epoch in range(trainer.current_epoch + 1)]
        if trainer.is_global_zero and paths[0].is_file():
            existing = []
            for path in paths:
                if path.is_file():
                    existing.append(path)
            content = make_animation(existing)
            if content:
                write_file(run_folder, f"{FOLDER}/epochs.gif", content)


def make_animation(files: list[Path]) -> bytes:
    """Combine images of the same size to a looping GIF.

    Args:
        files: the image files, in order.

    Returns:
        The content of the GIF; empty if no file is readable.
    """
    frames = _read_frames(files)
    if not frames:
        return b""
    frame_ms = round(1000 * min(MAX_FRAME_SECONDS, MAX_SECONDS / len(frames)))
    durations = [frame_ms] * (len(frames) - 1) + [round(1000 * LAST_FRAME_SECONDS)]
    content = io.BytesIO()
    frames[0].save(
        content, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0
    )
    return content.getvalue()


def _read_frames(files: list[Path]) -> list[Image.Image]:
    """Read evenly spaced images, without unreadable ones and those of another size."""
    count = min(MAX_FRAMES, len(files))
    indices = [index * (len(files) - 1) // max(count - 1, 1) for index in range(count)]
    frames = []
    for index in indices:
        with suppress(InvalidImageError):
            pixels = read_image(files[index], channels=3, max_pixels=MAX_FRAME_PIXELS)
            frames.append(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    alike = []
    for frame in frames:
        if frame.size == frames[-1].size:
            alike.append(frame)
    return alike


def _draw(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    *,
    epoch: int,
) -> None:
    if not trainer.is_global_zero:
        return
    task = cast(Task, pl_module)
    generated = task.sample_images()
    image = task.report.draw_samples(*generated) if generated else None
    if image is not None:
        log_image(trainer, image, "samples", _filename(epoch))


def _filename(epoch: int) -> str:
    return f"{FOLDER}/epoch={epoch:03d}.png"
