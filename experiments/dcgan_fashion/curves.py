"""Draw FID over steps for several losses and seeds, with that of real images, and samples of each.

python experiments/dcgan_fashion/curves.py outputs/losses
"""

import argparse
import csv
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

HERE = Path(__file__).parent
COLORS = {"bce": "#4878a8", "hinge": "#c8642a", "wgan_gp": "#3a923a"}
ROWS, TILE = 2, 66
"""Number of rows of samples to draw, and pixels of a sample with its border."""


def main() -> None:
    """Write ``fid.png`` and ``samples.png`` to the folder of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sweep", type=Path)
    sweep = parser.parse_args().sweep
    figure = Figure(figsize=(7, 4), dpi=110, layout="constrained")
    axes = figure.subplots()
    grids = []
    for loss, color in COLORS.items():
        for seed, style in ((0, "-"), (1, "--")):
            run = sweep / f"loss-{loss}_seed-{seed}"
            with (run / "metrics.csv").open() as file:
                rows = list(csv.DictReader(file))
            steps = [int(row["step"]) for row in rows]
            axes.plot(
                steps,
                [float(row["val/fid"]) for row in rows],
                style,
                color=color,
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
                    label=f"real images, seed {seed}",
                )
            if seed == 0:
                last = Image.open(max((run / "samples").glob("epoch=*.png")))
                grids.append(last.crop((0, 0, last.width, ROWS * TILE + 2)))
    axes.set(xlabel="steps", ylabel="FID, 600 validation images", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(HERE / "fid.png")
    combined = Image.new(
        "RGB", (grids[0].width, sum(grid.height for grid in grids) + 8 * (len(grids) - 1)), "white"
    )
    for index, grid in enumerate(grids):
        combined.paste(grid, (0, index * (grid.height + 8)))
    combined.save(HERE / "samples.png", optimize=True)


if __name__ == "__main__":
    main()
