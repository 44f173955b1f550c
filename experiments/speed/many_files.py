"""Measure ``mode=check`` and the first epoch over many tiny files, and the start over a million.

python experiments/speed/many_files.py          # about 25 minutes on two cores
python experiments/speed/many_files.py --counts 1000 2000 --listed 5000

Writes ``many_files.csv`` and ``many_files.png`` beside this file.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from compare import CPU, HERE, OURS, run
from matplotlib.figure import Figure
from PIL import Image

NUM_CLASSES = 10

SIDE = 16
"""Height and width of an image in pixels."""

LINKS_PER_FILE = 50_000
"""Names of one file at most; ext4 allows 65,000."""

WORDS = ("data=folder", f"data.spec.image_size=[{SIDE},{SIDE}]", "data.batch_size=256")

Row = dict[str, float | str]


def write_files(folder: Path, count: int) -> None:
    """Write different PNG files of noise in class folders.

    Args:
        folder: a new folder.
        count: number of files.
    """
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(_path(folder, number), compress_level=1)


def write_names(folder: Path, count: int) -> None:
    """Write few files with many names, so that a million of them takes little space.

    Args:
        folder: a new folder.
        count: number of names.
    """
    for number in range(count):
        path = _path(folder, number)
        if number % LINKS_PER_FILE == 0:
            original = path
            Image.new("RGB", (SIDE, SIDE), (number // LINKS_PER_FILE, 0, 0)).save(path)
        else:
            path.hardlink_to(original)


def _path(folder: Path, number: int) -> Path:
    path = folder / f"class{number % NUM_CLASSES}" / f"{number // 1000:04d}_{number:07d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def check(folder: Path, count: int, workspace: Path) -> Row:
    """Run ``mode=check`` over a folder."""
    words = ["-m", "vision_lab", "mode=check", *WORDS, f"data.root={folder}"]
    return _row("mode=check", count, run(words, workspace, threads=None))


def train(folder: Path, count: int, workspace: Path) -> Row:
    """Train for an epoch, with validation."""
    words = [*OURS, CPU, *WORDS, "model=tiny", f"data.root={folder}"]
    return _row("first epoch", count, run(words, workspace, threads=None))


def start(folder: Path, count: int, workspace: Path) -> Row:
    """Train for a step, of which the time until its end counts."""
    limits = ["trainer.limit_train_batches=1", "trainer.limit_val_batches=1"]
    words = [*OURS, CPU, *WORDS, "model=tiny", f"data.root={folder}", *limits]
    found = run(words, workspace, threads=None)
    return _row("first step", count, {**found, "seconds": found["train_first"]})


def _row(part: str, count: int, found: dict[str, float]) -> Row:
    seconds, memory = found["seconds"], found["memory"]
    row: Row = {"part": part, "files": count, "seconds": seconds, "memory_mb": memory}
    print({name: value if isinstance(value, str) else round(value) for name, value in row.items()})
    return row


def measure(
    counts: Sequence[int],
    write: Callable[[Path, int], None],
    parts: Sequence[Callable[[Path, int, Path], Row]],
) -> list[Row]:
    """Run parts over folders of several sizes.

    Args:
        counts: numbers of files.
        write: writes a folder of as many files.
        parts: what to run over it.
    """
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as temporary:
            folder, workspace = Path(temporary, "images"), Path(temporary, "workspace")
            workspace.mkdir()
            write(folder, count)
            for part in parts:
                rows.append(part(folder, count, workspace))
    return rows


def draw(rows: Sequence[Row], file: Path) -> None:
    """Draw seconds and memory over the number of files."""
    figure = Figure((9, 3.6), layout="constrained")
    for axes, name, title in zip(
        figure.subplots(1, 2),
        ("seconds", "memory_mb"),
        ("seconds", "peak memory of the process in MB"),
        strict=True,
    ):
        for part in dict.fromkeys(row["part"] for row in rows):
            found = [row for row in rows if row["part"] == part]
            counts = [float(row["files"]) / 1000 for row in found]
            values = [float(row[name]) for row in found]
            axes.plot(counts, values, marker="o", label=part)
        axes.set(xlabel="files in thousands", title=title, xlim=(0, None), ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(file, dpi=120)


def main() -> None:
    """Measure, write the table, and draw it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 50_000, 100_000])
    parser.add_argument("--listed", type=int, nargs="+", default=[100_000, 500_000, 1_000_000])
    options = parser.parse_args()
    rows = measure(options.counts, write_files, [check, train])
    rows += measure(options.listed, write_names, [start])
    with (HERE / "many_files.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator=os.linesep)
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, HERE / "many_files.png")


if __name__ == "__main__":
    main()
