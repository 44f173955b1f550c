"""Stream shards from an S3 server on this machine: images/s, disk, memory, and the time to the first batch.

pip install 'vision_lab[dev]'
python experiments/streaming/measure.py --folder /tmp/streaming
"""

import argparse
import io
import multiprocessing
import os
import shutil
import statistics
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from matplotlib.figure import Figure
from PIL import Image
from torch.utils.data import DataLoader

from vision_lab.core.spec import DataSpec
from vision_lab.data.encoded_image import EncodedImage
from vision_lab.data.module import DataModule
from vision_lab.data.shards.dataset import sharded_samples
from vision_lab.data.shards.index import make_table, write_index
from vision_lab.data.shards.storage import Storage
from vision_lab.data.shards.writer import PackSettings, SplitWriter

HERE = Path(__file__).parent
PORT = 5077
NUM_SHARDS, SAMPLES, SIDE = 36, 400, 256
"""Shards, images in each, and their height and width in pixels."""

BATCH, WORKERS = 32, 1
ROUNDS = 3
"""Epochs of each kind, alternating."""


class Usage(NamedTuple):
    """Disk and memory over the time of a run, in MB by seconds."""

    seconds: list[float]
    disk: list[float]
    memory: list[float]


def main() -> None:
    """Print the measurements, and write ``streaming.png``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    shutil.rmtree(folder, ignore_errors=True)
    os.environ["VISION_LAB_CACHE"] = str(folder / "cache")
    server = multiprocessing.get_context("spawn").Process(target=serve, daemon=True)
    server.start()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{PORT}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    size = make_shards(folder / "shards")
    assert server.pid is not None
    upload(folder / "shards", "s3://bucket/shards")
    limit = size / 3
    print(
        f"{NUM_SHARDS} shards of {SAMPLES} images, {size / 1e6:.0f} MB; cache {limit / 1e6:.0f} MB"
    )
    speeds: dict[str, list[float]] = {"disk": [], "s3": []}
    firsts = []
    for _ in range(ROUNDS):
        with UsageMonitor(folder / "cache", excluded=server.pid):  # which takes time, too
            speeds["disk"].append(run_epoch(str(folder / "shards"), limit)[1])
        shutil.rmtree(folder / "cache", ignore_errors=True)
        with UsageMonitor(folder / "cache", excluded=server.pid) as monitor:
            first, speed = run_epoch("s3://bucket/shards", limit)
        usage = monitor.usage
        firsts.append(first)
        speeds["s3"].append(speed)
    for name, values in speeds.items():
        print(f"{name}: {statistics.median(values):.0f} images/s, {[round(v) for v in values]}")
    ratio = statistics.median(speeds["s3"]) / statistics.median(speeds["disk"])
    print(f"ratio {ratio:.2f}; first batch after {[round(first, 2) for first in firsts]} s")
    print(f"disk at most {max(usage.disk):.1f} MB, memory at most {max(usage.memory):.0f} MB")
    plot(usage, limit / 1e6, size / 1e6)


def serve() -> None:
    """Run an S3 server."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=PORT, verbose=False)
    server.start()
    time.sleep(1e6)


def make_shards(folder: Path) -> int:
    """Write shards of photographs of smooth noise, and return their size in bytes."""
    settings = PackSettings(SAMPLES, shuffle=False, shorter_side=None, max_pixels=10**8)
    storage = Storage(str(folder))
    writer = SplitWriter(Photographs(), "train", spec(), settings, storage=storage, key="")
    written = list(writer.write_all(num_workers=2))
    table = make_table([item.shard for item in written], [item.rows for item in written])
    write_index(storage, {"train": table}, spec=vars(spec()), source={})
    return sum(shard.size for shard in table.shards)


class Photographs:
    """JPEG files of smooth noise, which are about as large as photographs of their size."""

    def __len__(self) -> int:
        return NUM_SHARDS * SAMPLES

    def __getitem__(self, index: int) -> tuple[EncodedImage, int]:
        coarse = np.random.default_rng(index).integers(0, 255, (SIDE // 4, SIDE // 4, 3))
        image = Image.fromarray(coarse.astype(np.uint8)).resize((SIDE, SIDE), Image.BICUBIC)
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=90)
        return EncodedImage(stream.getvalue(), f"{index}.jpg"), index % 10

    @property
    def targets(self) -> list[int]:
        return [index % 10 for index in range(len(self))]


def spec() -> DataSpec:
    """Return the spec of these images."""
    return DataSpec(
        target_type="labels",
        class_names=tuple("abcdefghij"),
        num_classes=10,
        image_size=(128, 128),
        channels=3,
        mean=(0.5,),
        std=(0.25,),
    )


def upload(folder: Path, address: str) -> None:
    """Copy all files to the server."""
    import boto3

    deadline = time.monotonic() + 60
    while True:
        try:
            boto3.client("s3").create_bucket(Bucket="bucket")
            break
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    storage = Storage(address)
    for path in sorted(folder.iterdir()):
        storage.upload(path, path.name)


def run_epoch(root: str, limit: float) -> tuple[float, float]:
    """Load an epoch, and return the seconds to its first batch and its images/s."""
    started = time.perf_counter()
    loader = make_loader(root, limit)
    first = 0.0
    count = 0
    for batch in loader:
        if not first:
            first = time.perf_counter() - started
            begun = time.perf_counter()
        else:
            count += len(batch.images)
    return first, count / (time.perf_counter() - begun)


def make_loader(root: str, limit: float) -> DataLoader:
    """Open shards as a run does."""

    def source(*, split: str) -> object:
        return sharded_samples(
            root,
            split=split,
            target_type="labels",
            window=4,
            ahead=2,
            cache_limit=limit / 1e9,
            max_pixels=10**8,
        )

    data = DataModule(
        spec=spec(),
        source=source,
        transforms={"train": [], "eval": []},
        batch_size=BATCH,
        num_workers=WORKERS,
        on_error="raise",
        seed=0,
        holdout_fraction=0.001,
    )
    data.prepare_data()
    data.splits = {"train": data.datasets["train"]}
    return data.train_dataloader()


class UsageMonitor:
    """Measures the size of a folder and the memory of this process and its workers."""

    def __init__(self, folder: Path, *, excluded: int) -> None:
        self.folder = folder
        self.excluded = excluded
        self.usage = Usage([], [], [])
        self.done = threading.Event()

    def __enter__(self) -> "UsageMonitor":
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def run(self) -> None:
        started = time.perf_counter()
        while not self.done.wait(0.3):
            self.usage.seconds.append(time.perf_counter() - started)
            self.usage.disk.append(folder_size(self.folder) / 1e6)
            self.usage.memory.append(memory(self.excluded) / 1e6)


def folder_size(folder: Path) -> int:
    """Return the space on disk of the files of a folder in bytes, and of deleted ones still open."""
    sizes = {}
    opened = []
    for process in (psutil.Process(), *psutil.Process().children()):
        opened += list(Path(f"/proc/{process.pid}/fd").glob("*"))
    for path in (*folder.rglob("*"), *opened):
        with suppress(FileNotFoundError, PermissionError):
            if path.parent.name != "fd" or str(folder) in str(path.readlink()):
                status = path.stat()
                sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


def memory(excluded: int) -> int:
    """Return the memory of this process and its workers in bytes, that which they share once."""
    process = psutil.Process()
    workers = [child for child in process.children() if child.pid != excluded]
    total = 0
    for each in (process, *workers):
        with suppress(psutil.Error):
            total += each.memory_full_info().pss
    return total


def plot(usage: Usage, limit: float, size: float) -> None:
    """Draw disk and memory over time."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(usage.seconds, usage.disk, color="#4878a8", label="copies of shards on disk")
    axes.plot(usage.seconds, usage.memory, color="#c8642a", label="memory of both processes")
    axes.axhline(limit, color="#4878a8", linestyle=":", linewidth=1)
    end = usage.seconds[-1]
    axes.text(
        end, limit, "data.shard_cache_limit", color="#4878a8", ha="right", va="bottom", fontsize=8
    )
    axes.set(xlabel="seconds", ylabel="MB", ylim=0, title=f"An epoch of {size:.0f} MB from S3")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(HERE / "streaming.png", dpi=130)


if __name__ == "__main__":
    main()
