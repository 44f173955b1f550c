"""The animation of samples over epochs."""

import io
from pathlib import Path

import pytest
from PIL import Image

from vision_lab.callbacks import sample_logger
from vision_lab.callbacks.sample_logger import make_animation


def files(folder: Path, count: int) -> list[Path]:
    found = [folder / f"{number}.png" for number in range(count)]
    for number, file in enumerate(found):
        Image.new("RGB", (20, 10), (20 * number, 0, 0)).save(file)
    return found


def seen(content: bytes) -> tuple[list[int], list[int]]:
    """Return the gray level and the duration in ms of each frame."""
    shades, durations = [], []
    with Image.open(io.BytesIO(content)) as image:
        for frame in range(image.n_frames):
            image.seek(frame)
            durations.append(image.info["duration"])
            shades.append(image.convert("RGB").getpixel((5, 5))[0])
    return shades, durations


def test_animation_frames_are_in_order_and_the_last_one_stays(tmp_path: Path):
    assert seen(make_animation(files(tmp_path, 4))) == ([0, 20, 40, 60], [200, 200, 200, 2000])


def test_frames_are_thinned_but_the_first_and_last_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sample_logger, "MAX_FRAMES", 4)
    assert seen(make_animation(files(tmp_path, 10)))[0] == [0, 60, 120, 180]


def test_an_animation_of_one_frame(tmp_path: Path):
    assert len(make_animation(files(tmp_path, 1))) > 0


def test_unreadable_samples_are_left_out(tmp_path: Path):
    """A folder of samples may come from someone else, or be damaged."""
    found = files(tmp_path, 4)
    found[0].write_bytes(b"no image")
    Image.new("1", (20_000, 20_000)).save(found[1])
    Image.new("RGB", (7, 7)).save(found[2])
    assert seen(make_animation(found)) == ([60], [2000])
    found[3].write_bytes(b"")
    found[2].write_bytes(b"")
    assert make_animation(found) == b""
