"""What a generator makes of the same noise after each epoch, and at the end how it came to that."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import pytorch_lightning as pl
from PIL import Image

from vision_lab.callbacks.image_logger import log_image
from vision_lab.core.files import write_file
from vision_lab.data.image_io import InvalidImageError, read_image
from vision_lab.tasks.base import Task

FOLDER = "samples"

MAX_FRAMES = 120
"""Of an animation, at most; of more epochs some are left out, evenly."""

MAX_SECONDS = 12.0
"""That an animation takes at most, and each frame a fifth of a second at most; the last one stays for two."""


MAX_FRAME_PIXELS = 10_000_000
"""Of an image that is read for an animation."""


class SampleLogger(pl.Callback):
    """Draws samples before training and after each epoch: TensorBoard's ``samples``, ``samples/epoch=003.png``.

    After the test they are put together into ``samples/epochs.gif``.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            _draw(trainer, pl_module, epoch=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _draw(trainer, pl_module, epoch=trainer.current_epoch + 1)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder = _folder(trainer)
        if trainer.is_global_zero and (folder / _name(0)).is_file():
            files = [folder / _name(epoch) for epoch in range(trainer.current_epoch + 1)]
            content = animation([file for file in files if file.is_file()])
            if content:
                write_file(Path(trainer.default_root_dir), f"{FOLDER}/epochs.gif", content)


def animation(files: list[Path]) -> bytes:
    """A GIF that shows images of one size one after another, for ever; nothing where none can be read."""
    frames = _read_frames(files)
    if not frames:
        return b""
    each = round(1000 * min(0.2, MAX_SECONDS / len(frames)))
    content = io.BytesIO()
    lasting = [each] * (len(frames) - 1) + [2000]
    frames[0].save(
        content, "GIF", save_all=True, append_images=frames[1:], duration=lasting, loop=0
    )
    return content.getvalue()


def _read_frames(files: list[Path]) -> list[Image.Image]:
    """Read evenly spaced images of a run's folder, without those that are damaged or of another size than the last."""
    count = min(MAX_FRAMES, len(files))
    chosen = [files[place * (len(files) - 1) // max(count - 1, 1)] for place in range(count)]
    frames = []
    for file in chosen:
        with suppress(InvalidImageError):
            pixels = read_image(file, channels=3, max_pixels=MAX_FRAME_PIXELS)
            frames.append(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    return [frame for frame in frames if frame.size == frames[-1].size]


def _draw(trainer: pl.Trainer, task: pl.LightningModule, *, epoch: int) -> None:
    assert isinstance(task, Task)
    picture = task.sample_grid() if trainer.is_global_zero else None
    if picture is not None:
        log_image(trainer, picture, "samples", f"{FOLDER}/{_name(epoch)}")


def _folder(trainer: pl.Trainer) -> Path:
    return Path(trainer.default_root_dir) / FOLDER


def _name(epoch: int) -> str:
    return f"epoch={epoch:03d}.png"
