"""Attempts with images: damaged, mislabeled, huge, or no files at all."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from random import Random

import mutations
import numpy as np
from PIL import Image
from run_folders import FAST

KINDS = {
    "jpg": "JPEG",
    "png": "PNG",
    "bmp": "BMP",
    "tif": "TIFF",
    "gif": "GIF",
    "webp": "WEBP",
    "ppm": "PPM",
}
"""ending: Pillow's name of the format."""

MODES = ("RGB", "L", "RGBA", "P", "1", "CMYK", "I;16")


def attack_images(chance: Random, folder: Path, runs: Path) -> list[str]:
    """Make a folder of images, damage some, and predict with, check, or train on them."""
    root = Path("images")
    for label in ("ash", "beech"):
        for number in range(4):
            _image(chance, root / label / f"{number}", damaged=False, folder=folder)
        _image(chance, root / label / "odd", damaged=True, folder=folder)
    use = chance.randrange(4)
    if use == 0:
        shutil.copytree(runs / "outputs" / "labels", "run")
        return ["mode=predict", "run=run", "source=images/ash"]
    words = [
        "data=folder",
        "data.root=images",
        "data.spec.image_size=[32,32]",
        "data.num_workers=0",
    ]
    if use == 1:
        return ["mode=check", *words]
    bad = chance.choice([[], ["data.on_error=skip"]])
    whole = [
        "trainer.limit_train_batches=1.0",
        "trainer.limit_val_batches=1.0",
        "trainer.limit_test_batches=1.0",
    ]
    return [*words, *FAST, *bad, *whole, "logger=none", "name=x"]


def _image(chance: Random, path: Path, *, damaged: bool, folder: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = chance.choice(list(KINDS)) if damaged else "png"
    path = path.with_suffix(f".{ending}")
    size = chance.choice([(40, 48), (1, 1), (1, 300), (33, 7)]) if damaged else (40, 48)
    pixels = np.frombuffer(chance.randbytes(size[0] * size[1] * 3), dtype=np.uint8).reshape(
        *size, 3
    )
    image = Image.fromarray(pixels)
    if damaged and chance.random() < 0.3:
        mode = chance.choice(MODES)
        image = (
            image.convert("L").convert("I").convert("I;16")
            if mode == "I;16"
            else image.convert(mode)
        )
    stream = io.BytesIO()
    try:
        image.save(stream, KINDS[ending])
    except (OSError, ValueError, KeyError):  # not every format has every mode
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
    content = stream.getvalue()
    if damaged:
        content = _damaged(chance, content)
        if chance.random() < 0.1:
            path = path.with_name(
                f"{chance.choice(['a b', '[x', os.fsdecode(bytes([255, 254])), 'x' * 240])}.{ending}"
            )
    with suppress(OSError):
        path.write_bytes(content)
        if damaged and chance.random() < 0.12:
            mutations.replace_by_special(chance, path, folder / "victim", secret=False)


def _damaged(chance: Random, content: bytes) -> bytes:
    kind = chance.randrange(6)
    if kind == 0:
        return _png_that_claims(
            *chance.choice([(60_000, 60_000), (2**31 - 1, 1), (0, 0), (1, 10**6), (9_000, 9_000)])
        )
    if kind == 1:
        return chance.choice(
            [
                b"",
                b"GIF89a",
                b"\xff\xd8\xff",
                b"\x89PNG\r\n\x1a\n",
                b"II*\0" + b"\xff" * 40,
                b"BM" + b"\xff" * 60,
            ]
        )
    if kind == 2:
        return b"P6 99999999 99999999 255\n" + b"\0" * 100
    for _ in range(chance.choice([1, 2, 4])):
        content = mutations.mutate_bytes(chance, content)
    return content


def _png_that_claims(width: int, height: int) -> bytes:
    """A small PNG whose header promises many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1_000_000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
