"""Measure images/s of all detectors of the sweep, print its table, and plot it over the years.

OMP_NUM_THREADS=1 python experiments/twenty_years_of_detection/history.py outputs/twenty_years
"""

import argparse
import json
import os
import statistics
import time
from math import pi
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from matplotlib.figure import Figure

import vision_lab
from vision_lab.api.runs import TrainedRun
from vision_lab.data.bundled.scenes import Scenes

HERE = Path(__file__).parent
ROUNDS = 7
"""Number of batches that each detector predicts, in turn with all others."""

BATCH = 8
"""Number of images of a batch."""


BEFORE, DEEP = "#c8642a", "#4878a8"
"""Colors of detectors before and with deep networks."""


class System(NamedTuple):
    """A detector of the study."""

    name: str
    year: int
    color: str
    label_side: str


SYSTEMS = {
    "viola_jones": System("Viola-Jones", 2001, BEFORE, "right"),
    "hog_svm": System("HOG + SVM", 2005, BEFORE, "right"),
    "dpm": System("DPM", 2010, BEFORE, "right"),
    "rcnn": System("R-CNN", 2014, DEEP, "left"),
    "fast_rcnn": System("Fast R-CNN", 2015, DEEP, "right"),
    "faster_rcnn": System("Faster R-CNN", 2015, DEEP, "left"),
    "ssd": System("SSD", 2016, DEEP, "left"),
    "yolo": System("YOLO", 2016, DEEP, "right"),
    "retinanet": System("RetinaNet", 2017, DEEP, "right"),
    "fcos": System("FCOS", 2019, DEEP, "right"),
}
"""Detectors by the name of their file in ``conf/experiment/``."""


def main() -> None:
    """Print a Markdown table and write ``history.png`` to the folder of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sweep", type=Path)
    sweep = parser.parse_args().sweep
    runs = {key: vision_lab.load(sweep / f"experiment-{key}") for key in SYSTEMS}
    speeds = measure_speeds(runs)
    results = {}
    for key in SYSTEMS:
        text = (sweep / f"experiment-{key}" / "result.json").read_text(encoding="utf-8")
        results[key] = json.loads(text)
    print("| detector | year | mAP | mAP50 | seconds | images/s | parameters |")
    print("|---|---|---|---|---|---|---|")
    for key, system in SYSTEMS.items():
        metrics = results[key]["metrics"]
        print(
            f"| {system.name} | {system.year} | {metrics['test/map']:.3f} "
            f"| {metrics['test/map50']:.3f} | {results[key]['seconds']:.0f} "
            f"| {speeds[key]:.1f} | {results[key]['parameters']:,} |"
        )
    plot(results, speeds).savefig(HERE / "history.png")


def measure_speeds(runs: dict[str, TrainedRun]) -> dict[str, float]:
    """Time each detector on each batch in turn, so that all see the same load: medians."""
    times: dict[str, list[float]] = {key: [] for key in runs}
    scenes = Scenes(
        split="test",
        num_images=ROUNDS * BATCH,
        image_size=(96, 96),
        label_set="grouped",
        target_type="boxes",
        seed=1,  # other scenes than those of the test, whose proposals are cached
    )
    with torch.inference_mode():
        for number in range(ROUNDS):
            images = torch.stack([scenes[number * BATCH + k][0] for k in range(BATCH)]) / 255
            for key, run in runs.items():
                spec = run.task.spec
                mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (spec.mean, spec.std))
                with TemporaryDirectory() as folder:
                    os.environ["VISION_LAB_CACHE"] = folder  # proposals of others are not read
                    start = time.perf_counter()
                    run.network.decode(run.network((images - mean) / std))
                    times[key].append(time.perf_counter() - start)
    return {key: BATCH / statistics.median(seconds[1:]) for key, seconds in times.items()}


def plot(results: dict[str, dict], speeds: dict[str, float]) -> Figure:
    """Draw mAP50 over the year of publication, where the area of a point is its images/s."""
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for key, system in SYSTEMS.items():
        score = results[key]["metrics"]["test/map50"]
        area = 4 * speeds[key]
        axes.scatter(system.year, score, s=area, color=system.color, alpha=0.75, linewidths=0)
        offset = (area / pi) ** 0.5 + 4
        is_left = system.label_side == "left"
        axes.annotate(
            f"{system.name}\n{speeds[key]:.0f} images/s",
            (system.year, score),
            xytext=(-offset if is_left else offset, 0),
            textcoords="offset points",
            ha="right" if is_left else "left",
            va="center",
            fontsize=8,
        )
    axes.set(xlabel="year of publication", ylabel="mAP50 on 300 test scenes", ylim=(0, None))
    axes.set_xlim(1999.5, 2022)
    axes.set_xticks(range(2000, 2021, 5))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
