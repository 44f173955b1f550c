"""Images of every supported kind, compared by pixel; and reasons of unreadable files."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.builders import write_bomb
from vision_lab.data.image_io import InvalidImageError, read_image, to_uint8_image

RED = (200, 30, 40)


def solid(mode: str, value, size=(8, 6)) -> Image.Image:
    return Image.new(mode, size, value)


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def first_pixel(path: Path, channels: int = 3) -> list[int]:
    image = read_image(path, channels=channels)
    assert image.dtype == torch.uint8
    assert image.shape == (channels, 6, 8)
    return image[:, 0, 0].tolist()


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.gif", "a.ppm"])
def test_lossless_color(tmp_path: Path, name: str):
    assert first_pixel(saved(tmp_path / name, solid("RGB", RED))) == list(RED)


def test_webp_lossless(tmp_path: Path):
    assert first_pixel(saved(tmp_path / "a.webp", solid("RGB", RED), lossless=True)) == list(RED)


def test_jpeg(tmp_path: Path):
    assert first_pixel(saved(tmp_path / "a.jpg", solid("RGB", RED), quality=95)) == pytest.approx(
        RED, abs=3
    )


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
def test_gray_images_are_read_as_color_and_as_gray(tmp_path: Path, name: str):
    path = saved(tmp_path / name, solid("L", 77))
    assert first_pixel(path) == [77, 77, 77]
    assert first_pixel(path, channels=1) == [77]


def test_black_and_white(tmp_path: Path):
    assert first_pixel(saved(tmp_path / "a.png", solid("1", 1))) == [255, 255, 255]


def test_palette_masks(tmp_path: Path):
    image = solid("P", 1)
    image.putpalette([0, 0, 0, *RED])
    assert first_pixel(saved(tmp_path / "a.png", image)) == list(RED)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.webp"])
def test_transparent_pixels_become_white(tmp_path: Path, name: str):
    options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    clear = first_pixel(saved(tmp_path / f"clear_{name}", solid("RGBA", (*RED, 0)), **options))
    half = first_pixel(saved(tmp_path / f"half_{name}", solid("RGBA", (*RED, 128)), **options))
    whole = first_pixel(saved(tmp_path / f"whole_{name}", solid("RGBA", (*RED, 255)), **options))
    assert clear == [255, 255, 255]
    assert half == pytest.approx([227, 142, 147], abs=1)
    assert whole == list(RED)


def test_gray_with_alpha_and_transparent_palettes(tmp_path: Path):
    assert first_pixel(saved(tmp_path / "la.png", solid("LA", (77, 0)))) == [255, 255, 255]
    image = solid("P", 1)
    image.putpalette([0, 0, 0, *RED])
    assert first_pixel(saved(tmp_path / "p.png", image, transparency=1)) == [255, 255, 255]


def test_cmyk_jpeg(tmp_path: Path):
    path = saved(tmp_path / "a.jpg", solid("CMYK", (0, 255, 255, 0)), quality=95)
    assert first_pixel(path) == pytest.approx([254, 0, 0], abs=6)


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path, name: str):
    for value, expected in ((65535, 255), (0, 0), (257 * 100, 100), (128, 0), (32768, 128)):
        image = Image.fromarray(np.full((6, 8), value, dtype=np.uint16))
        assert first_pixel(saved(tmp_path / name, image)) == [expected] * 3


def test_sixteen_bit_color_png(tmp_path: Path):
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    row = b"\0" + struct.pack(">3H", 65535, 257 * 7, 0) * 8
    header = struct.pack(">2I5B", 8, 6, 16, 2, 0, 0, 0)
    content = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row * 6))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "a.png").write_bytes(content)
    assert first_pixel(tmp_path / "a.png") == [255, 7, 0]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff"])
def test_exif_orientation_is_applied(tmp_path: Path, name: str):
    pixels = np.zeros((6, 8, 3), dtype=np.uint8)
    pixels[:, :4] = 255  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright: left becomes top
    path = saved(tmp_path / name, Image.fromarray(pixels), exif=exif)
    image = read_image(path, channels=3)
    assert image.shape == (3, 8, 6)
    assert image[:, 0].float().mean() > 240
    assert image[:, -1].float().mean() < 15


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path):
    frames = [solid("RGB", RED), solid("RGB", (0, 0, 255))]
    assert first_pixel(
        saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    ) == list(RED)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_truncated_files_are_refused(tmp_path: Path, kind: str):
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(content, kind)
    path = tmp_path / "cut"
    path.write_bytes(content.getvalue()[: len(content.getvalue()) // 2])
    with pytest.raises(InvalidImageError):
        read_image(path, channels=3)


def test_reasons(tmp_path: Path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("this is no image at all, whatever its name says")
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "float.tiff")
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in {
        "pipe.png": "it is a pipe, a device or a folder, not a file",
        "empty.jpg": "the file is empty",
        "text.jpg": "it is not an image, or has an unsupported format",
        "float.tiff": "its values are floats, not integers of 8 or 16 bits",
        "missing.jpg": "there is no such file",
    }.items():
        with pytest.raises(InvalidImageError, match=f"^{reason}$"):
            read_image(tmp_path / name, channels=3)


def test_from_memory():
    array = np.full((6, 8, 3), RED, dtype=np.uint8)
    for image in (array, Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1)):
        assert to_uint8_image(image, channels=3)[:, 2, 2].tolist() == list(RED)
    assert to_uint8_image(np.full((6, 8), 9, dtype=np.uint8), channels=1).shape == (1, 6, 8)
    assert to_uint8_image(torch.zeros(5, 6, 8, dtype=torch.uint8), channels=5).shape == (5, 6, 8)
    with pytest.raises(InvalidImageError, match=r"it has 5 channels, but data.spec.channels=3"):
        to_uint8_image(torch.zeros(5, 6, 8, dtype=torch.uint8), channels=3)
    for kind in (torch.float32, torch.int32):
        with pytest.raises(InvalidImageError, match=rf"its values are {kind}"):
            to_uint8_image(torch.zeros(3, 6, 8, dtype=kind), channels=3)


def test_a_png_with_missing_data(tmp_path: Path):
    """torchvision's decoder crashes the process on these; the images are reported as invalid."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    signature, header = b"\x89PNG\r\n\x1a\n", struct.pack(">IIBBBBB", 90, 90, 8, 2, 0, 0, 0)
    rows = bytes(90 * 271)
    pixels = {
        "few": zlib.compress(bytes(1000)),
        "filter": zlib.compress(b"\x77" * len(rows)),
        "checksum": zlib.compress(rows)[:-4] + b"\1\2\3\4",
    }
    for name, content in pixels.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(
            signature + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
        )
        with pytest.raises(InvalidImageError):
            read_image(path, channels=3)


def test_a_decompression_bomb_is_not_decoded(tmp_path: Path):
    path = write_bomb(tmp_path / "a.png")
    assert path.stat().st_size < 3_000_000
    with pytest.raises(InvalidImageError) as caught:
        read_image(path, channels=1)
    assert str(caught.value) == ("it has 60000 x 60000 pixels, more than data.max_pixels=100000000")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.gif"])
def test_max_pixels_applies_to_every_format(tmp_path: Path, name: str):
    path = saved(tmp_path / name, solid("RGB", RED, size=(20, 10)))
    assert read_image(path, channels=3, max_pixels=200).shape == (3, 10, 20)
    with pytest.raises(
        InvalidImageError, match=r"it has 20 x 10 pixels, more than data.max_pixels=199"
    ):
        read_image(path, channels=3, max_pixels=199)


def test_the_size_of_a_pil_image_is_checked_before_decoding(tmp_path: Path):
    with pytest.raises(InvalidImageError, match="60000 x 60000 pixels"):
        to_uint8_image(Image.open(write_bomb(tmp_path / "a.png")), channels=1)


def test_max_pixels_can_exceed_the_limit_of_pillow(tmp_path: Path):
    assert Image.MAX_IMAGE_PIXELS is None
    path = saved(
        tmp_path / "a.png", solid("1", 0, size=(20_000, 9_000))
    )  # 180 million: Pillow's own limit is 179
    assert read_image(path, channels=1, max_pixels=10**9).shape == (1, 9_000, 20_000)
