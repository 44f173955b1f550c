"""The other side of each pair: training and prediction by hand, as in an article or a tutorial.

python plain.py train --data folder --root photographs --model tiny --size 224 --batch 32 --steps 60
python plain.py predict --root photographs --weights squeezenet1_0.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torchvision
from networks import Tiny, TwoLayers
from PIL import Image
from stopwatch import Stopwatch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms

IMAGENET = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


class Garments(Dataset[tuple[torch.Tensor, int]]):
    """The bundled garments through Pillow, as torchvision's datasets return images."""

    def __init__(self, split: str) -> None:
        from vision_lab.data.bundled.fashion_mini import FashionMini

        self.dataset = FashionMini(split=split)
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.287], [0.354]),
            ]
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = self.dataset[index]
        return self.transform(Image.fromarray(image[0].numpy())), int(label)


def make_datasets(options: argparse.Namespace) -> tuple[Any, Any]:
    """Return the datasets of training and validation."""
    if options.data == "garments":
        return Garments("train"), Garments("test")
    augment = transforms.Compose(
        [
            transforms.RandomResizedCrop(options.size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            IMAGENET,
        ]
    )
    center = transforms.Compose(
        [
            transforms.Resize(round(options.size / 0.875)),
            transforms.CenterCrop(options.size),
            transforms.ToTensor(),
            IMAGENET,
        ]
    )
    folder = torchvision.datasets.ImageFolder
    return folder(options.root, augment), folder(options.root, center)


def make_network(name: str, num_classes: int) -> nn.Module:
    """Return a network by its name."""
    if name == "tiny":
        return Tiny(num_classes)
    if name == "two_layers":
        return TwoLayers(num_classes)
    if name == "resnet20":
        from vision_lab.models.architectures.cifar_resnet import CifarResNet

        return CifarResNet(depth=20, num_classes=num_classes)
    return torchvision.models.get_model(name, num_classes=num_classes)


def train(options: argparse.Namespace) -> None:
    """Train for some steps, and validate."""
    watch = Stopwatch()
    train_set, val_set = make_datasets(options)
    num_classes = 10 if options.data == "garments" else len(train_set.classes)
    network = make_network(options.model, num_classes)
    if options.data == "garments" and options.model == "resnet20":
        network.conv1 = nn.Conv2d(1, 16, kernel_size=3, padding=1, bias=False)
    loader = DataLoader(
        train_set, batch_size=options.batch, shuffle=True, num_workers=options.workers
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.02)
    loss_function = nn.CrossEntropyLoss(label_smoothing=0.1)
    network.train()
    for step, (images, labels) in enumerate(loader, start=1):
        optimizer.zero_grad()
        loss = loss_function(network(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()  # a script prints it, or at least adds it up
        watch.step("train", len(images))
        if step == options.steps:
            break
    network.eval()
    val_part = Subset(val_set, range(min(options.val_images, len(val_set))))
    correct = 0
    with torch.no_grad():
        for images, labels in DataLoader(
            val_part, batch_size=options.batch, num_workers=options.workers
        ):
            correct += int((network(images).argmax(dim=1) == labels).sum())
            watch.step("val", len(images))
    watch.write()


def predict(options: argparse.Namespace) -> None:
    """Classify each photograph of a folder, one by one."""
    watch = Stopwatch()
    network = torchvision.models.squeezenet1_0()
    network.load_state_dict(torch.load(options.weights))
    network.eval()
    transform = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), IMAGENET]
    )
    lines = []
    for path in sorted(Path(options.root).rglob("*.jpg")):
        with torch.no_grad():
            scores = network(transform(Image.open(path).convert("RGB"))[None]).softmax(dim=1)
        best = scores[0].topk(5)
        lines.append(f"{path},{best.indices.tolist()},{best.values.tolist()}")
        watch.step("predict", 1)
    Path("predictions.csv").write_text("\n".join(lines))
    watch.write()


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["train", "predict"])
    parser.add_argument("--data", choices=["folder", "garments"], default="folder")
    parser.add_argument("--root")
    parser.add_argument("--weights")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--val-images", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    {"train": train, "predict": predict}[options.task](options)


if __name__ == "__main__":
    main()
