"""Compare the speed of vision_lab with scripts written by hand, alternating; see README.md.

python experiments/speed/compare.py                          # all pairs: about an hour
python experiments/speed/compare.py read_12mp start          # some of them
python experiments/speed/compare.py --weights squeezenet1_0.pth predict predict_only
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from stopwatch import RESULT, START  # noqa: E402

OURS = (
    *("-m", "vision_lab", "--config-dir", str(HERE / "conf")),
    *("+callbacks.timer._target_=measure.Timer", "trainer.max_epochs=1"),
    *("callbacks.sample_losses=null", "trainer.limit_test_batches=1"),  # after what is measured
)
CPU = "trainer=cpu"
PLAIN = (str(HERE / "plain.py"),)

SIZES = {"0.2mp": (375, 500), "2mp": (1200, 1600), "12mp": (3000, 4000)}
"""(height, width) of photographs."""

REFERENCE_BATCH = 16

MEANINGS = {
    "seconds": "seconds for 300, start included",
    "marginal": "seconds for 270 more",
}
"""What the table calls a value."""


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


def make_pairs(folder: Path, *, weights: str | None, reference: str | None) -> list[Pair]:
    """Return all pairs.

    Args:
        folder: folder of the photographs.
        weights: file of SqueezeNet's weights; None leaves out predictions.
        reference: torchvision's reference script; None leaves it out.
    """
    pairs = [*reading_pairs(folder), *training_pairs(folder)]
    if weights:
        pairs += prediction_pairs(os.path.abspath(weights))  # noqa: PTH100
    if reference:
        pairs += reference_pairs(os.path.abspath(reference), folder)  # noqa: PTH100
    return pairs


def reading_pairs(folder: Path) -> list[Pair]:
    """Return the pairs of reading photographs, from files and from caches."""
    pairs = []
    for size, steps, target in (("0.2mp", 48, 1.6), ("2mp", 24, 3.0), ("12mp", 12, 5.0)):
        words = ("data.num_workers=1", f"trainer.limit_train_batches={steps}", "model=tiny")
        pairs.append(
            Pair(
                name=f"read_{size}",
                title=f"photographs of {size.replace('mp', ' megapixels')}, one reading process",
                ours=[*OURS, *folder_words(folder / size), *words],
                other=plain_words(folder / size, "tiny", steps),
                value="train",
                target=target,
            )
        )
    first = pairs[0]
    for place in ("memory", "disk"):
        pairs.append(
            Pair(
                name=f"cache_{place}",
                title=f"the same of 0.2 megapixels, data.cache={place}",
                ours=[*first.ours, f"data.cache={place}"],
                other=first.other,
                value="train",
                target=4.0,
            )
        )
    return pairs


def training_pairs(folder: Path) -> list[Pair]:
    """Return the pairs of starting, training and validating."""
    small = "data.spec.image_size=[28,28]"
    images = folder / "0.2mp"
    photographs = folder_words(images)
    return [
        Pair(
            name="start",
            title="seconds to the end of the first step, ResNet-20 at 28 px",
            ours=[*OURS, CPU, "trainer.limit_train_batches=5", small],
            other=garments_words("resnet20", 5),
            value="train_first",
            target=1.5,
            threads=None,
        ),
        Pair(
            name="two_layers",
            title="two-layer CNN at 28 px, batches of 64, one thread",
            ours=[*OURS, CPU, "model=two_layers", small],
            other=garments_words("two_layers", 93),
            value="train",
            target=0.95,
        ),
        Pair(
            name="resnet20",
            title="ResNet-20 at 28 px, batches of 64",
            ours=[*OURS, CPU, "model=resnet20", small],
            other=garments_words("resnet20", 93),
            value="train",
            target=1.15,
            threads=None,
        ),
        Pair(
            name="resnet18",
            title="ResNet-18 at 224 px, batches of 16",
            ours=[
                *(*OURS, *photographs, "model=resnet18", "data.batch_size=16"),
                *("data.num_workers=1", "trainer.limit_train_batches=25"),
            ],
            other=[*plain_words(images, "resnet18", 25), "--batch", "16"],
            value="train",
            target=1.15,
            threads=None,
        ),
        Pair(
            name="validation",
            title="validation of SqueezeNet at 224 px in training",
            ours=[
                *(*OURS, *photographs, "model=squeezenet1_0"),
                *("data.num_workers=1", "trainer.limit_train_batches=2"),
            ],
            other=[*plain_words(images, "squeezenet1_0", 2), "--val-images", "200"],
            value="val",
            target=2.5,
            threads=None,
        ),
        Pair(
            name="processes",
            title="two processes of one thread, against one: ResNet-20 at 32 px",
            ours=[*OURS, "trainer=ddp_cpu", "data.batch_size=32"],
            other=[*OURS, CPU, "data.batch_size=64"],
            value="train",
            target=1.85,
        ),
    ]


def prediction_pairs(weights: str) -> list[Pair]:
    """Return the pairs of predicting a folder of photographs.

    Args:
        weights: file of SqueezeNet's weights.
    """
    pairs = []
    words = (f"model.weights={weights}", "model=squeezenet1_0", "data=imagenet", CPU)
    for name, value, target in (("predict", "seconds", 1.5), ("predict_only", "marginal", 2.5)):
        pairs.append(
            Pair(
                name=name,
                title=f"predicting photographs with SqueezeNet: {MEANINGS[value]}",
                ours=["-m", "vision_lab", "mode=predict", *words, "source={source}"],
                other=[*PLAIN, "predict", "--weights", weights, "--root", "{source}"],
                value=value,
                target=target,
                threads=None,
            )
        )
    return pairs


def reference_pairs(script: str, folder: Path) -> list[Pair]:
    """Return the pair with torchvision's reference script, which trains with SGD.

    Args:
        script: path of its ``references/classification/train.py``.
        folder: folder of the photographs.
    """
    images = folder / "reference"
    words = ("model=resnet18", "data.num_workers=1", f"data.batch_size={REFERENCE_BATCH}")
    return [
        Pair(
            name="reference",
            title="ResNet-18 at 224 px, batches of 16: torchvision's reference script",
            ours=[*OURS, *folder_words(images / "train"), *words, "optimizer=sgd"],
            other=[
                *(script, "--data-path", str(images), "--model", "resnet18", "--device", "cpu"),
                *("-b", str(REFERENCE_BATCH), "-j", "1", "--epochs", "1", "--print-freq", "1"),
            ],
            value="train",
            target=1.15,
            threads=None,
        )
    ]


def folder_words(images: Path) -> list[str]:
    """Return the words of a run on a folder of photographs."""
    return [CPU, "data=folder", f"data.root={images}", "augment=imagenet"]


def plain_words(images: Path, network: str, steps: int) -> list[str]:
    """Return the words that train by hand on photographs."""
    words = [*PLAIN, "train", "--root", str(images), "--workers", "1"]
    return [*words, "--model", network, "--steps", str(steps)]


def garments_words(network: str, steps: int) -> list[str]:
    """Return the words that train by hand on the bundled garments."""
    words = [*PLAIN, "train", "--data", "garments", "--batch", "64"]
    return [*words, "--model", network, "--steps", str(steps)]


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
    for part, count in (("train", 450), ("val", 20)):
        for number in range(count):
            source = folder / "0.2mp" / f"class{number % 4}" / f"{number % 40:03d}_00.jpg"
            target = folder / "reference" / part / source.parent.name / f"{number:03d}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(source)
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
    output = folder / "output.txt"
    started = time.perf_counter()
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        memory = watch_memory(process)
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"{' '.join(words)}\n{output.read_text()}")
    if result.is_file():
        found = json.loads(result.read_text())
    else:  # torchvision's script prints the seconds of a step, averaged over twenty
        seconds_shown = re.findall(r" time: ([0-9.]+)  data", output.read_text())
        found = {"train": REFERENCE_BATCH / float(seconds_shown[-1])} if seconds_shown else {}
    return {**found, "memory": memory, "seconds": seconds}


def watch_memory(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end of a process, and return its peak memory in MB, without its workers'."""
    peak = 0.0
    while process.poll() is None:
        with suppress(OSError, IndexError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        time.sleep(0.05)
    return peak


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
    return (
        f"| {pair.title} | {ours:.4g} | {other:.4g} | {middle:.2f} ({spread}) | "
        f"{sign} {pair.target:g} | {memory:.0f} / {other_memory:.0f} MB |"
    )


def main() -> None:
    """Measure the pairs that were named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pairs", nargs="*", help="names of pairs; all of them by default")
    parser.add_argument("--weights", help="file of SqueezeNet 1.0's weights, to predict")
    parser.add_argument("--reference", help="torchvision's references/classification/train.py")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_photographs(folder / "photographs")
        pairs = make_pairs(
            folder / "photographs", weights=options.weights, reference=options.reference
        )
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
