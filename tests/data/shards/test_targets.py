"""Masks and boxes as files in shards, which may come from others."""

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vision_lab.data.image_io import InvalidImageError
from vision_lab.data.shards.targets import decode_boxes, decode_mask, encode_boxes, encode_mask

BOXES: dict[str, Any] = {"boxes": [[1, 2, 3.5, 4]], "labels": [0]}


def test_boxes_are_read_as_they_were_written():
    target = {
        "boxes": np.array([[0.1, 2, 30.7, 20]], np.float32),
        "labels": np.array([3]),
        "area": np.array([np.nan], np.float32),
        "crowd": np.array([True]),
        "size": (24, 32),
    }
    decoded = decode_boxes(encode_boxes(target))
    assert np.array_equal(decoded["boxes"], target["boxes"])
    assert np.isnan(decoded["area"]).all()
    assert decoded["crowd"].tolist() == [True]
    assert decoded["size"] == (24, 32)
    assert decode_boxes(b'{"boxes": [], "labels": []}')["boxes"].shape == (0, 4)


@pytest.mark.parametrize(
    "values",
    [
        {"caption": "a cat"},
        {"boxes": [[1, 2, 3, 4]]},
        BOXES | {"labels": ["cat"]},
        BOXES | {"labels": [True]},
        BOXES | {"labels": [0.0]},
        BOXES | {"crowd": ["no"]},
        BOXES | {"area": ["7"]},
        BOXES | {"boxes": [[[1, 1], [20, 20]]]},
        BOXES | {"boxes": [["1", 2, 3, 4]]},
        BOXES | {"boxes": [[1, 2, 3]]},
        BOXES | {"boxes": 3},
        BOXES | {"size": [1]},
        [1, 2],
    ],
)
def test_malformed_boxes_are_named(values: object):
    with pytest.raises(
        InvalidImageError, match=r"its boxes (must be JSON with boxes|cannot be read)"
    ):
        decode_boxes(json.dumps(values).encode())


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff"])
def test_files_that_are_no_boxes_are_named(content: bytes):
    with pytest.raises(InvalidImageError, match="its boxes"):
        decode_boxes(content)


def test_masks_are_checked():
    with pytest.raises(InvalidImageError, match="contains values of -1 to 3, not of 0 to 255"):
        encode_mask(np.array([[-1, 3]]))
    with pytest.raises(InvalidImageError, match="its mask cannot be read"):
        decode_mask(b"no PNG", max_pixels=100)
    with pytest.raises(InvalidImageError, match="its mask has more than 1 pixels"):
        decode_mask(encode_mask(np.array([[0, 1]])), max_pixels=1)
    stream = io.BytesIO()
    Image.new("RGB", (2, 2)).save(stream, "PNG")
    with pytest.raises(InvalidImageError, match="its mask has the mode RGB, not gray values"):
        decode_mask(stream.getvalue(), max_pixels=100)
