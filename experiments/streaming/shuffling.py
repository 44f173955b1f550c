"""How well an epoch of shards is mixed, beside webdataset's own shuffling.

pip install 'vision_lab[dev]'
python experiments/streaming/shuffling.py
"""

import io
import itertools
import statistics
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import webdataset
from scipy.stats import spearmanr

from vision_lab.data.sampler import ShardSampler
from vision_lab.training.seeding import derive_seed

NUM_SHARDS, SAMPLES = 100, 100
"""Shards, and samples in each."""

BATCH = 64
EPOCHS = 6

Order = Callable[[int], list[int]]
"""Returns the samples of an epoch, in order."""


def main() -> None:
    """Print a Markdown table."""
    with TemporaryDirectory() as folder:
        urls = write_shards(Path(folder))
        orders: dict[str, Order] = {"no shuffling": lambda _: list(range(NUM_SHARDS * SAMPLES))}
        for window in (4, 16, 64, 100):
            orders[f"vision_lab, data.shuffle_window={window}"] = ours(window)
        for size in (400, 1600, 6400):
            orders[f"webdataset, shuffle({size})"] = theirs(urls, size)
        print("| | between epochs | with the stored order | shards in a batch |")
        print("|---|---|---|---|")
        for name, order in orders.items():
            print(f"| {name} | {describe([order(epoch) for epoch in range(EPOCHS)])} |")


def ours(window: int) -> Order:
    """Return the order of ``ShardSampler``."""
    shard_of = torch.arange(NUM_SHARDS).repeat_interleave(SAMPLES)

    def draw(epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(derive_seed(0, epoch))
        return list(ShardSampler(shard_of, window=window, generator=generator))

    return draw


def theirs(urls: list[str], size: int) -> Order:
    """Return the order of webdataset: shards in random order, and a buffer of samples."""

    def draw(epoch: int) -> list[int]:
        shards = webdataset.WebDataset(urls, shardshuffle=NUM_SHARDS, seed=epoch)
        mixed = shards.shuffle(size, initial=size, seed=epoch)
        return [int(sample["__key__"]) for sample in mixed]

    return draw


def write_shards(folder: Path) -> list[str]:
    """Write shards of numbers."""
    urls = []
    for shard in range(NUM_SHARDS):
        path = folder / f"train-{shard:06d}.tar"
        with tarfile.open(path, "w") as tar:
            for index in range(shard * SAMPLES, (shard + 1) * SAMPLES):
                info = tarfile.TarInfo(f"{index:09d}.cls")
                info.size = 1
                tar.addfile(info, io.BytesIO(b"0"))
        urls.append(str(path))
    return urls


def describe(epochs: list[list[int]]) -> str:
    """Return the cells of a row: absolute rank correlations, and shards in a batch."""
    size = NUM_SHARDS * SAMPLES
    positions = []
    for epoch in epochs:
        assert sorted(epoch) == list(range(size))
        position = torch.empty(size, dtype=torch.int64)
        position[torch.tensor(epoch)] = torch.arange(size)
        positions.append(position.numpy())
    pairs = [
        abs(spearmanr(first, second).statistic) for first, second in itertools.pairwise(positions)
    ]
    stored = [abs(spearmanr(position, range(size)).statistic) for position in positions]
    mixed = []
    for epoch in epochs:
        for start in range(0, size - BATCH, BATCH):
            mixed.append(len({index // SAMPLES for index in epoch[start : start + BATCH]}))
    means = (statistics.mean(pairs), statistics.mean(stored), statistics.mean(mixed))
    return f"{means[0]:.3f} | {means[1]:.3f} | {means[2]:.1f}"


if __name__ == "__main__":
    main()
