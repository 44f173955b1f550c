"""Print where the milliseconds of a start and of a training step go, for one or two versions.

python experiments/speed/where_time_goes.py
python experiments/speed/where_time_goes.py --before <folder of an earlier version>

Both are of ResNet-20 on the bundled garments. The start is divided by ``python -X importtime``; what
is left until the end of the first step is one row. A step, with one thread, is divided by cProfile,
which makes Python code slower than it is, but not torch's operators.
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
from collections import defaultdict
from pathlib import Path

from compare import HERE, ROOT
from measure import FIRST_STEP
from stopwatch import RESULT, START

PACKAGES = {
    "torch": ("torch", "functorch", "torchgen", "sympy", "mpmath", "networkx", "jinja2"),
    "torchvision, Pillow": ("torchvision", "PIL", "simplejpeg"),
    "pytorch-lightning": ("pytorch_lightning", "lightning_fabric", "lightning_utilities"),
    "torchmetrics": ("torchmetrics",),
    "SciPy, matplotlib": ("scipy", "matplotlib", "mpl_toolkits", "dateutil", "kiwisolver"),
    "Hydra, Rich, TensorBoard": ("hydra", "omegaconf", "antlr4", "rich", "tensorboard", "google"),
    "vision_lab": ("vision_lab",),
}
"""What is imported, by row of the table; everything else is in the last one."""

OTHER = "other packages, standard library"

REST = "configuration, building, first step"

SMALL = ("trainer=cpu", "trainer.max_epochs=1", "data.spec.image_size=[28,28]")

IMPORT_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


def measure_start(root: Path) -> dict[str, float]:
    """Return the milliseconds of each part of a start.

    Args:
        root: folder of the version.
    """
    words = ("+callbacks.timer._target_=measure.Timer", "trainer.limit_train_batches=5")
    output, result = run(root, ["-X", "importtime"], [*SMALL, *words])
    parts: dict[str, float] = defaultdict(float)
    for microseconds, module in IMPORT_LINE.findall(output.partition(FIRST_STEP.decode())[0]):
        parts[find_row(module.partition(".")[0])] += int(microseconds) / 1000
    total = 1000 * result["train_first"]
    return {**parts, REST: total - sum(parts.values()), "sum": total}


def find_row(package: str) -> str:
    """Return the row of an imported package."""
    for row, names in PACKAGES.items():
        if package in names:
            return row
    return OTHER


def measure_step(root: Path) -> dict[str, float]:
    """Return the milliseconds of each part of a training step.

    Args:
        root: folder of the version.
    """
    words = ("+callbacks.timer._target_=measure.StepProfile", "model=resnet20")
    _, result = run(root, [], [*SMALL, *words], OMP_NUM_THREADS="1")
    return {**result, "sum": sum(result.values())}


def run(
    root: Path, options: list[str], words: list[str], **variables: str
) -> tuple[str, dict[str, float]]:
    """Run a command of a version, and return what it prints and reports.

    Args:
        root: folder of the version.
        options: options of Python.
        words: words of the command line.
        variables: further environment variables.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        paths = os.pathsep.join([str(HERE), str(root)])
        environment = os.environ | {RESULT: str(result), START: repr(time.time())} | variables
        done = subprocess.run(
            [sys.executable, *options, "-m", "vision_lab", "--config-dir", f"{HERE}/conf", *words],
            cwd=folder,
            env=environment | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        return done.stderr, json.loads(result.read_text())


def main() -> None:
    """Measure each version alternately, and print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, help="folder of an earlier version")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    roots = {"now": ROOT}
    if options.before:
        roots = {"before": options.before.resolve(), **roots}
    for title, measure in (("start", measure_start), ("training step", measure_step)):
        found = defaultdict(list)
        for _ in range(options.repetitions):
            for name, root in roots.items():
                found[name].append(measure(root))
        rows = dict.fromkeys(row for parts in found.values() for part in parts for row in part)
        print(f"\n| {title}, ms | {' | '.join(roots)} |\n|---|{'---|' * len(roots)}")
        for row in rows:
            cells = []
            for name in roots:
                middle = statistics.median(parts.get(row, 0.0) for parts in found[name])
                cells.append(f"{middle:.3g}" if middle < 100 else f"{middle:.0f}")
            print(f"| {row} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
