"""Compare the speed of vision_lab with scripts written by hand, alternating; see README.md.

python experiments/speed/compare.py                          # all pairs: about two hours
python experiments/speed/compare.py read_12mp start          # some of them
python experiments/speed/compare.py --weights squeezenet1_0.pth predict predict_only
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from measure import RESULT, START  # noqa: E402

OURS = ("-m", "vision_lab", "--config-dir", str(HERE / "conf"))
TIMED = ("+callbacks.timer._target_=measure.Timer", "trainer.max_epochs=1")
CPU = "trainer=cpu"
PLAIN = (str(HERE / "plain.py"),)

SIZES = {"0.2mp": (375, 500), "2mp": (1200, 1600), "12mp": (3000, 4000)}
"""(height, width) of photographs."""


@dataclass
class Pair:
    """Two commands that do the same, and what is compared.

    Attributes:
        name: name of the pair.
        title: what the table calls it.
        ours: words of Python's command line.
        other: the same for the other side.
        value: what is compared: "train", "val" (images/s), "train_first" (seconds to the end of the
            first step), "seconds" (of the whole command), or "marginal" (seconds of a command with
            300 images less those of one with 30).
        target: ratio to reach; ours must be faster by it, or slower by at most it for seconds.
        threads: threads of an operation; None for the default.
    """

    name: str
    title: str
    ours: Sequence[str]
    other: Sequence[str]
    value: str
    target: float
    threads: int | None = 1
    rows: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Ours, the other's, and the peak memory of each in MB."""


def make_pairs(folder: Path, weights: str | None) -> list[Pair]:
    """Return all pairs.

    Args:
        folder: folder of the photographs.
        weights: file of SqueezeNet's weights; None leaves out predictions.
    """
    pairs = []
    for name, target in (("0.2mp", 1.6), ("2mp", 3.0), ("12mp", 5.0)):
        images = folder / name
        pairs.append(
            Pair(
                f"read_{name}",
                f"photographs of {name.replace('mp', ' megapixels')}, one reading process",
                [*OURS, *TIMED, CPU, *read_words(images)],
                [*PLAIN, "train", "--root", str(images), "--workers", "1", "--steps", "48"],
                "train",
                target,
            )
        )
    for place in ("memory", "disk"):
        images = folder / "0.2mp"
        pairs.append(
            Pair(
                f"cache_{place}",
                f"the same of 0.2 megapixels, data.cache={place}",
                [*OURS, *TIMED, CPU, *read_words(images), f"data.cache={place}"],
                [*PLAIN, "train", "--root", str(images), "--workers", "1", "--steps", "48"],
                "train",
                4.0,
            )
        )
    garments = ("--data", "garments")
    pairs += [
        Pair(
            "start",
            "seconds to the end of the first step, ResNet-20 at 28 px",
            [*OURS, *TIMED, CPU, "trainer.limit_train_batches=5", "data.spec.image_size=[28,28]"],
            [*PLAIN, "train", *garments, "--model", "resnet20", "--batch", "64", "--steps", "5"],
            "train_first",
            1.5,
            None,
        ),
        Pair(
            "two_layers",
            "two-layer CNN at 28 px, batches of 64, one thread",
            [*OURS, *TIMED, CPU, "model=two_layers", "data.spec.image_size=[28,28]"],
            [*PLAIN, "train", *garments, "--model", "two_layers", "--batch", "64", "--steps", "93"],
            "train",
            0.95,
        ),
        Pair(
            "resnet20",
            "ResNet-20 at 28 px, batches of 64",
            [*OURS, *TIMED, CPU, "model=resnet20", "data.spec.image_size=[28,28]"],
            [*PLAIN, "train", *garments, "--model", "resnet20", "--batch", "64", "--steps", "93"],
            "train",
            1.15,
            None,
        ),
        Pair(
            "resnet18",
            "ResNet-18 at 224 px, batches of 16",
            [
                *OURS,
                *TIMED,
                CPU,
                *folder_words(folder / "0.2mp"),
                "model=resnet18",
                "data.batch_size=16",
                "trainer.limit_train_batches=25",
            ],
            [
                *PLAIN,
                *("train", "--root", str(folder / "0.2mp"), "--model", "resnet18"),
                *("--batch", "16", "--steps", "25", "--workers", "1"),
            ],
            "train",
            1.15,
            None,
        ),
        Pair(
            "validation",
            "validation of SqueezeNet at 224 px in training, batches of 32",
            [
                *OURS,
                *TIMED,
                CPU,
                *folder_words(folder / "0.2mp"),
                "model=squeezenet1_0",
                "trainer.limit_train_batches=2",
            ],
            [
                *PLAIN,
                *("train", "--root", str(folder / "0.2mp"), "--model", "squeezenet1_0"),
                *("--steps", "2", "--workers", "1", "--val-images", "300"),
            ],
            "val",
            2.5,
            None,
        ),
        Pair(
            "processes",
            "two processes of one thread, against one: ResNet-20 at 32 px",
            [*OURS, *TIMED, "trainer=ddp_cpu", "data.batch_size=32"],
            [*OURS, *TIMED, CPU, "data.batch_size=64"],
            "train",
            1.85,
        ),
    ]
    if weights:
        words = ("model=squeezenet1_0", "data=imagenet", f"model.weights={weights}")
        for name, value, target in (("predict", "seconds", 1.5), ("predict_only", "marginal", 2.5)):
            pairs.append(
                Pair(
                    name,
                    f"predicting photographs with SqueezeNet: {value}",
                    [*OURS, "mode=predict", *words, CPU, "source={source}"],
                    [*PLAIN, "predict", "--weights", weights, "--root", "{source}"],
                    value,
                    target,
                    None,
                )
            )
    return pairs


def folder_words(images: Path) -> list[str]:
    """Return the words of a run on a folder of photographs."""
    return ["data=folder", f"data.root={images}", "augment=imagenet", "data.num_workers=1"]


def read_words(images: Path) -> list[str]:
    """Return the words of a run that only reads photographs."""
    return [*folder_words(images), "model=tiny", "trainer.limit_train_batches=48"]


def make_photographs(folder: Path) -> None:
    """Write JPEG files with the detail of photographs, of each size, and 300 to predict.

    Each of 40 files has 50 names, so that an epoch is long enough to be measured.
    """
    with np.load(ROOT / "vision_lab/data/bundled/backgrounds.npz") as file:
        originals = list(file.values())
    random = np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        for number in range(40):
            target = folder / name / f"class{number % 4}" / f"{number:03d}_00.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            small = Image.fromarray(originals[number % len(originals)])
            large = small.resize((width, height), Image.Resampling.BICUBIC)
            grain = random.normal(0, 6, (height, width, 1))
            pixels = (np.asarray(large) + grain).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(target, quality=90)
            for copy in range(1, 50):
                target.with_name(f"{number:03d}_{copy:02d}.jpg").hardlink_to(target)
    for count in (300, 30):
        (folder / f"predict{count}").mkdir()
        for number in range(count):
            source = folder / "0.2mp" / f"class{number % 4}" / f"{number % 40:03d}_00.jpg"
            (folder / f"predict{count}" / f"{number:03d}.jpg").hardlink_to(source)


def run(words: Sequence[str], folder: Path, threads: int | None) -> dict[str, float]:
    """Run one side, and return what it reports.

    Args:
        words: words of Python's command line.
        folder: working directory.
        threads: threads of an operation; None for the default.
    """
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    environment = os.environ | {RESULT: str(result), START: repr(time.time())}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), str(ROOT)])
    environment.pop("OMP_NUM_THREADS", None)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}\n{done.stderr}")
    found = json.loads(result.read_text()) if result.is_file() else {}
    return {"memory": 0.0, **found, "seconds": time.perf_counter() - started}


def measure(pair: Pair, words: Sequence[str], folder: Path) -> tuple[float, float]:
    """Return the compared value of one side, and its peak memory in MB."""
    if pair.value in ("seconds", "marginal"):
        seconds = {}
        for count in (300, 30) if pair.value == "marginal" else (300,):
            source = folder / "photographs" / f"predict{count}"
            typed = [word.replace("{source}", str(source)) for word in words]
            found = run(typed, folder, pair.threads)
            seconds[count] = found["seconds"]
        return seconds[300] - seconds.get(30, 0.0), found["memory"]
    found = run(words, folder, pair.threads)
    return found[pair.value], found["memory"]


def compare(pair: Pair, folder: Path, repetitions: int) -> None:
    """Run a pair alternately, and print each ratio."""
    for number in range(repetitions):
        order = ("ours", "other") if number % 2 == 0 else ("other", "ours")
        found = {side: measure(pair, getattr(pair, side), folder) for side in order}
        row = (found["ours"][0], found["other"][0], found["ours"][1], found["other"][1])
        pair.rows.append(row)
        print(f"{pair.name} {number + 1}: {row[0]:.2f} {row[1]:.2f}", flush=True)


def ratio(pair: Pair, ours: float, other: float) -> float:
    """Return by how much ours is faster; for the first step by how much it takes longer."""
    if pair.value in ("seconds", "marginal"):
        return other / ours
    return ours / other


def format_row(pair: Pair) -> str:
    """Return the row of a pair in the table."""
    columns = list(zip(*pair.rows, strict=True))
    ours, other, memory, other_memory = (statistics.median(column) for column in columns)
    ratios = sorted(ratio(pair, row[0], row[1]) for row in pair.rows)
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    sign = "at most" if pair.value == "train_first" else "at least"
    middle = statistics.median(ratios)
    shown = f"{memory:.0f} / {other_memory:.0f} MB" if memory and other_memory else ""
    return (
        f"| {pair.title} | {ours:.4g} | {other:.4g} | {middle:.2f} ({spread}) | "
        f"{sign} {pair.target:g} | {shown} |"
    )


def main() -> None:
    """Measure the pairs that were named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pairs", nargs="*", help="names of pairs; all of them by default")
    parser.add_argument("--weights", help="file of SqueezeNet 1.0's weights, to predict")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_photographs(folder / "photographs")
        weights = os.path.abspath(options.weights) if options.weights else None  # noqa: PTH100
        pairs = make_pairs(folder / "photographs", weights)
        names = [pair.name for pair in pairs]
        for name in options.pairs:
            if name not in names:
                sys.exit(f"{name}: type some of {', '.join(names)}")
        selected = [pair for pair in pairs if not options.pairs or pair.name in options.pairs]
        for pair in selected:
            compare(pair, folder, options.repetitions)
        print("| case | ours | other | ratio | aim | peak memory |\n|---|---|---|---|---|---|")
        for pair in selected:
            print(format_row(pair))


if __name__ == "__main__":
    main()
