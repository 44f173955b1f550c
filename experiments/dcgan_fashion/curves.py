"""Draws FID over steps for runs of some losses and seeds, with what real pictures get, and a grid of samples of each.

python experiments/dcgan_fashion/curves.py outputs/losses
"""

import argparse
import csv
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

HERE = Path(__file__).parent
COLOURS = {"bce": "#4878a8", "hinge": "#c8642a", "wgan_gp": "#3a923a"}
ROWS, TILE = 2, 66
"""Rows of samples that are shown, and pixels of one with its border."""


def main() -> None:
    """Into ``fid.png`` and ``samples.png`` beside this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sweep", type=Path)
    sweep = parser.parse_args().sweep
    figure = Figure(figsize=(7, 4), dpi=110, layout="constrained")
    axes = figure.subplots()
    grids = []
    for loss, colour in COLOURS.items():
        for seed, style in ((0, "-"), (1, "--")):
            run = sweep / f"task.loss-{loss}_seed-{seed}"
            with (run / "metrics.csv").open() as file:
                rows = list(csv.DictReader(file))
            steps = [int(row["step"]) for row in rows]
            axes.plot(
                steps,
                [float(row["val/fid"]) for row in rows],
                style,
                color=colour,
                label=f"{loss}, seed {seed}",
            )
            if loss == "bce":
                floor = [float(row["val/real_fid"]) for row in rows]
                axes.plot(
                    steps,
                    floor,
                    style,
                    color="black",
                    linewidth=1,
                    label=f"real pictures, seed {seed}",
                )
            if seed == 0:
                last = Image.open(max((run / "samples").glob("epoch=*.png")))
                grids.append(last.crop((0, 0, last.width, ROWS * TILE + 2)))
    axes.set(xlabel="steps", ylabel="FID, 600 validation pictures", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(HERE / "fid.png")
    together = Image.new(
        "RGB", (grids[0].width, sum(grid.height for grid in grids) + 8 * (len(grids) - 1)), "white"
    )
    for place, grid in enumerate(grids):
        together.paste(grid, (0, place * (grid.height + 8)))
    together.save(HERE / "samples.png", optimize=True)


if __name__ == "__main__":
    main()
