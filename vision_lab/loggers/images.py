"""Images and settings for any logger that can show them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary

from vision_lab.loggers.event_files import RESULTS_PREFIX


def log_png(
    logger: Logger,
    png: bytes,
    name: str,
    *,
    size: tuple[int, int],
    step: int,
) -> None:
    """Log an image.

    TensorBoard's logger, those with Lightning's ``log_image`` (wandb, Neptune) and those whose
    experiment has MLflow's ``log_image`` show it; others do not.

    Args:
        logger: any logger.
        png: the encoded image, with three channels.
        name: its name, such as ``val/predictions``.
        size: (height, width) in pixels.
        step: the step of training.
    """
    if isinstance(logger, TensorBoardLogger):
        # SummaryWriter.add_image would encode the image again, which takes longer than drawing it.
        height, width = size
        encoded = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        tag = f"{RESULTS_PREFIX}/{name}" if name.startswith("test/") else name
        summary = Summary(value=[Summary.Value(tag=tag, image=encoded)])
        logger.experiment._get_file_writer().add_summary(summary, step)
        return
    any_logger: Any = logger
    if hasattr(logger, "log_image"):
        any_logger.log_image(key=name, images=[_decode(png)], step=step)
    elif hasattr(any_logger.experiment, "log_image"):
        file = f"{name}/{step:08d}.png"
        any_logger.experiment.log_image(any_logger.run_id, _decode(png), file)


def log_settings(logger: Logger, settings: Mapping[str, Any]) -> None:
    """Log the settings of a run, to compare it with others.

    Args:
        logger: any logger but TensorBoard's, which shows them with the results.
        settings: numbers and text by name.
    """
    if not isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(dict(settings))


def _decode(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))
