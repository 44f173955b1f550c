"""Our training against another, pair by pair in one process; see README.md for the questions and the table.

python experiments/speed/compare.py step      # ResNet-18 at 32 px, where computing is the limit: against a plain loop
python experiments/speed/compare.py reading   # a folder of JPEGs, where decoding is the limit: against a plain loop
python experiments/speed/compare.py safety    # ResNet-18 at 32 px: against ours without seeding and checkpoints
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from vision_lab.cli.main import main
from vision_lab.data.bundled.fashion_mini import FashionMini

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from tiny import Tiny  # noqa: E402

PAIRS = 3
STEPS = 40  # half an epoch of the embedded garments: what we do once an epoch weighs double
EPOCH = 84  # a whole one
CLASSES = 10


def timed_by_us(steps: int, batch_size: int, *words: str) -> float:
    """Images/s of ``vision_lab`` as configured by default: its order, seeding, logging, metrics, bar and checkpoints.

    The clock runs from the first step to the end of the epoch, one batch of validation and the checkpoints included.
    """
    import pytorch_lightning as pl

    marks: dict[str, float] = {}
    start, end = pl.Callback.on_train_start, pl.Callback.on_train_end

    def started(*_: object) -> None:
        marks["start"] = time.perf_counter()

    def ended(*_: object) -> None:
        marks["end"] = time.perf_counter()

    pl.Callback.on_train_start, pl.Callback.on_train_end = started, ended  # type: ignore[method-assign]
    try:
        code = main(
            [
                *words,
                f"data.batch_size={batch_size}",
                "trainer=cpu",
                "trainer.max_epochs=1",
                f"trainer.limit_train_batches={steps}",
                "trainer.limit_val_batches=1",
                "trainer.limit_test_batches=1",
                "trainer.num_sanity_val_steps=0",
            ]
        )
    finally:
        pl.Callback.on_train_start, pl.Callback.on_train_end = start, end  # type: ignore[method-assign]
    assert code == 0
    return steps * batch_size / (marks["end"] - marks["start"])


def timed_plainly(steps: int, batch_size: int, network: nn.Module, loader: DataLoader) -> float:
    """Images/s of the loop that every tutorial has: no logging, no metrics, no checkpoints."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps)
    loss_function = nn.CrossEntropyLoss(label_smoothing=0.1)
    network.train()
    began = time.perf_counter()
    for step, (images, labels) in enumerate(loader, start=1):
        loss = loss_function(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step == steps:
            break
    return steps * batch_size / (time.perf_counter() - began)


class Transformed(torch.utils.data.Dataset):
    """The embedded garments with a plain script's transforms."""

    def __init__(self) -> None:
        self.garments = FashionMini(split="train")
        self.transform = v2.Compose(
            [
                v2.Resize(32),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.287], [0.354]),
            ]
        )

    def __len__(self) -> int:
        return len(self.garments)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = self.garments[index]
        return self.transform(image), label


def step_pair() -> tuple[float, float]:
    """ResNet-18 with a small stem on the embedded garments, batches of 64."""
    network = torchvision.models.resnet18(num_classes=CLASSES)
    network.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    loader = DataLoader(Transformed(), batch_size=64, shuffle=True)
    plain = timed_plainly(STEPS, 64, network, loader)
    return timed_by_us(STEPS, 64, "model=resnet18"), plain


def reading_pair(folder: Path) -> tuple[float, float]:
    """Pictures of 500x375 pixels cropped to 224, by two workers, batches of 32."""
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.RandomResizedCrop(224),
            torchvision.transforms.RandomHorizontalFlip(),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    dataset = torchvision.datasets.ImageFolder(str(folder), transform)
    plain = timed_plainly(
        300, 32, Tiny(CLASSES), DataLoader(dataset, batch_size=32, shuffle=True, num_workers=2)
    )
    words = (
        "--config-dir",
        str(HERE / "conf"),
        "model=tiny",
        "data=folder",
        f"data.root={folder}",
        "augment=imagenet",
    )
    return timed_by_us(300, 32, *words, "data.num_workers=2"), plain


def safety_pair() -> tuple[float, float]:
    """ResNet-18 as configured by default, and without what makes it reproducible and lets it go on."""
    bare = (
        "callbacks.resume_checkpoint=null",
        "callbacks.best_checkpoint=null",
        "callbacks.terminate_on_nan=null",
    )
    with patch("vision_lab.tasks.base.seed_all"), patch("vision_lab.data.module.seed_all"):
        without = timed_by_us(EPOCH, 64, "model=resnet18", *bare)
    return timed_by_us(EPOCH, 64, "model=resnet18"), without


def make_pictures(folder: Path, count: int = 2200, names: int = 6) -> None:
    """JPEGs of 500x375 pixels with the detail of photographs: enlarged garments under grain, quality 90.

    Each under several names, so that an epoch is long enough to be measured.
    """
    garments, random = FashionMini(split="train"), np.random.default_rng(0)
    for number in range(count):
        image, label = garments[number * 6000 // count]
        grain = random.normal(0, 12, (375, 500, 3))
        large = np.asarray(
            Image.fromarray(image[0].numpy()).resize((500, 375), Image.Resampling.BICUBIC)
        )
        target = folder / str(int(label)) / f"{number:05d}.jpg"
        target.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray((large[..., None] + grain).clip(0, 255).astype(np.uint8)).save(
            target, quality=90
        )
        for name in range(1, names):
            target.with_stem(f"{number:05d}_{name}").hardlink_to(target)


def compared(pair: Callable[[], tuple[float, float]]) -> None:
    """Run the pairs, the first uncounted, and print a row each, then medians."""
    rows = []
    for number in range(PAIRS + 1):
        ours, plain = pair()
        if number:
            rows.append((ours, plain, ours / plain))
            print(
                f"pair {number}: ours {ours:.1f} images/s, other {plain:.1f}, ratio {ours / plain:.3f}",
                flush=True,
            )
    ours, plain, ratio = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"median: ours {ours:.1f} images/s, other {plain:.1f}, ratio {ratio:.3f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        if sys.argv[1:] == ["step"]:
            compared(step_pair)
        elif sys.argv[1:] == ["safety"]:
            compared(safety_pair)
        elif sys.argv[1:] == ["reading"]:
            make_pictures(Path(temporary) / "pictures")
            torch.set_num_threads(1)  # for both: the two workers have the two cores
            compared(lambda: reading_pair(Path(temporary) / "pictures"))
        else:
            sys.exit(__doc__)
