"""Count how many of the planted label errors a comparison has listed."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from mislabeled import plant

from vision_lab.data.bundled.fashion_mini import FashionMini


def main(file: str, count: int = 20, seed: int = 0) -> None:
    """Print for each prefix of the list how many planted errors it contains.

    Args:
        file: path of ``label_errors.csv``.
        count: number of planted errors.
        seed: seed of their selection.
    """
    planted = set(plant(FashionMini(split="train").targets, count, seed=seed))
    with Path(file).open(newline="") as lines:
        samples = [row["sample"] for row in csv.DictReader(lines)]
    found = [sample in {f"train {index}" for index in planted} for sample in samples]
    for size in (10, 20, 40):
        print(f"{sum(found[:size])} of {count} among the first {min(size, len(found))}")


if __name__ == "__main__":
    main(sys.argv[1])
