"""Compare the speed of two kinds of training, alternating in one process; see README.md.

python experiments/speed/compare.py step      # ResNet-18 at 32 px, limited by computation: against a plain loop
python experiments/speed/compare.py reading   # a folder of JPEGs, limited by decoding: against a plain loop
python experiments/speed/compare.py safety    # ResNet-18 at 32 px: against the same without seeding and checkpoints
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
STEPS = 40  # half an epoch of fashion_mini: the cost of what is done once per epoch counts twice
EPOCH = 84  # steps of an epoch
CLASSES = 10


def time_vision_lab(steps: int, batch_size: int, *words: str) -> float:
    """Return images/s of ``vision_lab`` with its defaults.

    The time is that from the first step to the end of the epoch, with a validation batch and the
    checkpoints.
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


def time_plain_loop(steps: int, batch_size: int, network: nn.Module, loader: DataLoader) -> float:
    """Return images/s of a loop without logging, metrics and checkpoints."""
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
    """The fashion_mini dataset with the transforms of a plain script."""

    def __init__(self) -> None:
        self.dataset = FashionMini(split="train")
        self.transform = v2.Compose(
            [
                v2.Resize(32),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.287], [0.354]),
            ]
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = self.dataset[index]
        return self.transform(image), label


def step_pair() -> tuple[float, float]:
    """Time ResNet-18 with a small stem on fashion_mini, with batches of 64."""
    network = torchvision.models.resnet18(num_classes=CLASSES)
    network.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    loader = DataLoader(Transformed(), batch_size=64, shuffle=True)
    plain = time_plain_loop(STEPS, 64, network, loader)
    return time_vision_lab(STEPS, 64, "model=resnet18"), plain


def reading_pair(folder: Path) -> tuple[float, float]:
    """Time images of 500x375 pixels cropped to 224, with two workers and batches of 32."""
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.RandomResizedCrop(224),
            torchvision.transforms.RandomHorizontalFlip(),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    dataset = torchvision.datasets.ImageFolder(str(folder), transform)
    plain = time_plain_loop(
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
    return time_vision_lab(300, 32, *words, "data.num_workers=2"), plain


def safety_pair() -> tuple[float, float]:
    """Time ResNet-18 with the defaults, and without seeding, checkpoints and NaN check."""
    bare = (
        "callbacks.resume_checkpoint=null",
        "callbacks.best_checkpoint=null",
        "callbacks.terminate_on_nan=null",
    )
    with patch("vision_lab.tasks.base.seed_all"), patch("vision_lab.data.module.seed_all"):
        without = time_vision_lab(EPOCH, 64, "model=resnet18", *bare)
    return time_vision_lab(EPOCH, 64, "model=resnet18"), without


def make_images(folder: Path, count: int = 2200, names: int = 6) -> None:
    """Write JPEGs of 500x375 pixels with the detail of photographs: upscaled images with noise.

    Each has several names, so that an epoch is long enough to be measured.
    """
    dataset, random = FashionMini(split="train"), np.random.default_rng(0)
    for number in range(count):
        image, label = dataset[number * 6000 // count]
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


def compare(pair: Callable[[], tuple[float, float]]) -> None:
    """Run the pairs, of which the first is a warm-up, and print each and the medians."""
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
            compare(step_pair)
        elif sys.argv[1:] == ["safety"]:
            compare(safety_pair)
        elif sys.argv[1:] == ["reading"]:
            make_images(Path(temporary) / "images")
            torch.set_num_threads(1)  # for both, because the two workers use the two cores
            compare(lambda: reading_pair(Path(temporary) / "images"))
        else:
            sys.exit(__doc__)
