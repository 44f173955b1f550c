"""Boxes in pixels of the original images, in which detections are measured and written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vision_lab.core.batch import Detections, Sample


def in_file_pixels(
    predictions: Sequence[Detections], samples: Sequence[Sample]
) -> Iterator[tuple[Sample, Detections]]:
    """Yield each sample with its detections in pixels of the original image.

    Args:
        predictions: detections of each image, in pixels of the batch images.
        samples: the samples.
    """
    for detections, sample in zip(predictions, samples, strict=True):
        yield sample, replace(detections, boxes=scale_to_file(detections.boxes, sample))


def scale_to_file(boxes: Tensor, sample: Sample) -> Tensor:
    """Scale boxes from a batch image to its original image, and clip them to it.

    Args:
        boxes: (n, 4) boxes, x1, y1, x2, y2.
        sample: the sample.

    Returns:
        (n, 4) boxes.
    """
    assert sample.content_size is not None
    (height, width), (content_height, content_width) = sample.size, sample.content_size
    scale = boxes.new_tensor([width / content_width, height / content_height])
    limits = boxes.new_tensor([width, height, width, height])
    return torch.minimum((boxes * scale.repeat(2)).clamp(min=0), limits)
