"""Pack 100,000 small files, whole and killed three times: files/s, and whether the shards are equal.

python experiments/streaming/pack_many.py --folder /tmp/pack_many
"""

import argparse
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

NUM_FILES, NUM_CLASSES, SIDE = 100_000, 10, 32

KILLED_AT = (5, 20, 40)
"""Numbers of shards after which the command is killed."""


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    write_files(folder / "files")
    for attempt in range(3):
        shutil.rmtree(folder / "whole", ignore_errors=True)
        started = time.perf_counter()
        pack(folder, "whole").wait()
        seconds = time.perf_counter() - started
        print(f"{attempt}: {seconds:.1f} s with its start, {NUM_FILES / seconds:.0f} files/s")
    shutil.rmtree(folder / "killed", ignore_errors=True)
    for number in KILLED_AT:
        process = pack(folder, "killed")
        while len(list((folder / "killed").glob("*.tar"))) < number:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"killed with {len(list((folder / 'killed').glob('*.tar')))} shards")
    pack(folder, "killed").wait()
    same = digests(folder / "whole") == digests(folder / "killed")
    print(f"{len(digests(folder / 'whole'))} files of shards and index, equal: {same}")


def pack(folder: Path, name: str) -> subprocess.Popen[bytes]:
    """Start the command."""
    words = [
        *("mode=pack", "data=folder", f"data.root={folder / 'files'}"),
        *(f"mode.shards={folder / name}", "mode.samples_per_shard=1000", "data.num_workers=2"),
    ]
    command = [sys.executable, "-m", "vision_lab", *words]
    return subprocess.Popen(command, cwd=folder, start_new_session=True)


def write_files(folder: Path) -> None:
    """Write small JPEG files in folders of classes."""
    if folder.exists():
        return
    for label in range(NUM_CLASSES):
        (folder / f"class_{label}").mkdir(parents=True)
    for index in range(NUM_FILES):
        pixels = np.full((SIDE, SIDE, 3), index % 251, np.uint8)
        pixels[: index % SIDE] = index // 251 % 256
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG")
        path = folder / f"class_{index % NUM_CLASSES}" / f"{index:06d}.jpg"
        path.write_bytes(stream.getvalue())


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of each file."""
    found = {}
    for path in sorted(folder.iterdir()):
        found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


if __name__ == "__main__":
    main()
