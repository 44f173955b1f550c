"""What several tests build: configs, specs, targets, tasks, and files."""

import struct
import zlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from PIL import Image
from torch import nn

from vision_lab.config.groups import CONFIG_DIR, find_groups
from vision_lab.config.resolution import Config, resolve_config
from vision_lab.core.batch import Batch, BoxTargets, Detections, Sample
from vision_lab.core.protocols import Dataset
from vision_lab.core.spec import IGNORE_INDEX, DataSpec
from vision_lab.losses.classes import CrossEntropy
from vision_lab.tasks.classification import ClassificationTask
from vision_lab.training.lr_schedules import Constant

GROUPS = find_groups([CONFIG_DIR])

FAMILIES = (
    "alexnet vgg11 vgg11_bn resnet18 resnet20 resnext50_32x4d wide_resnet50_2 densenet121 "
    "inception_v3 googlenet squeezenet1_1 mobilenet_v2 mobilenet_v3_small efficientnet_b0 "
    "efficientnet_v2_s convnext_tiny unet conv_encoder"
).split()
"""The smallest model of each family, which the everyday tests build; slow tests build the others."""

WITHOUT_FEATURE_MAPS = (
    "vit_b_16 vit_b_32 vit_l_16 vit_l_32 vit_h_14 swin_t swin_s swin_b swin_v2_t swin_v2_s swin_v2_b "
    "maxvit_t row_lstm"
).split()
"""Models without feature maps of several strides, for classification only."""

FAST_WITH_IMAGES = ("debug=fast", "trainer=cpu", "logger=none")
"""Overrides for a run of seconds."""

FAST_ANY_MODEL = (*FAST_WITH_IMAGES, "callbacks.progress_bar=null", "callbacks.image_logger=null")
"""Overrides for a run of half of that time."""

FAST = (*FAST_ANY_MODEL, "model.network.depth=8")
"""Overrides for a run of the default model, ResNet-20, as ResNet-8."""


@dataclass(frozen=True)
class Outcome:
    """What a command printed and returned."""

    code: int
    out: str
    err: str


def composed(*words: str) -> Config:
    """Compose and resolve the config of a command; HydraConfig is set as in a command.

    The choices of groups are composed once; other overrides are applied to a copy, by Hydra.
    """
    overrides = OverridesParser.create().parse_overrides(list(words))
    choices = tuple(o.input_line for o in overrides if o.key_or_group in GROUPS)
    values = [o for o in overrides if o.key_or_group not in GROUPS]
    composed = _compose(choices)
    if values:
        composed = deepcopy(composed)
        ConfigLoaderImpl._apply_overrides_to_config(values, composed)
    HydraConfig.instance().set_config(composed)
    options = composed.hydra.runtime.choices
    groups = {group: option for group, option in options.items() if "/" not in group}
    config = resolve_config(composed, choices=groups)
    del config.values["hydra"]
    return config


@cache
def _compose(choices: tuple[str, ...]) -> DictConfig:
    overrides = [*choices, "+hydra.runtime.output_dir=outputs"]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
        return compose("config", overrides=overrides, return_hydra_config=True)


def make_source(**datasets: Callable[[], Dataset] | None) -> Callable[..., Dataset | None]:
    """Return a source of splits from a function for each."""

    def source(*, split: str) -> Dataset | None:
        create = datasets.get(split)
        return create() if create else None

    return source


def without(node: dict, *keys: str) -> dict:
    """Return a config node without some of its keys."""
    return {key: value for key, value in node.items() if key not in keys}


def box_spec(size: tuple[int, int]) -> DataSpec:
    return DataSpec(
        target_type="boxes",
        class_names=tuple("abcde"),
        num_classes=5,
        image_size=size,
        channels=3,
        mean=(0.5,),
        std=(0.25,),
    )


def box_targets(
    boxes: Sequence[Sequence[float]], labels: Sequence[int], crowd: Sequence[bool] | None = None
) -> BoxTargets:
    count = len(labels)
    return BoxTargets(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(crowd) if crowd else torch.zeros(count, dtype=torch.bool),
        torch.zeros(count, dtype=torch.bool),
        torch.zeros(count),
    )


def classification_task(spec: DataSpec, **changes) -> ClassificationTask:
    """Create a task with a linear network for images of 4 x 4 pixels."""
    arguments = {
        "network": nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, spec.num_classes)),
        "spec": spec,
        "optimizer": torch.optim.SGD,
        "schedule": Constant(),
        "monitor": "val/accuracy",
        "monitor_mode": "max",
        "seed": 0,
        "loss": CrossEntropy(),
        "class_weights": None,
        "aux_weight": 0.3,
    }
    return ClassificationTask(**(arguments | changes))


def detections(rows: Sequence[Sequence[float]]) -> Detections:
    """Create detections from rows of label, box and score."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, 1:5], table[:, 0].long(), table[:, 5])


def letterboxed_batch() -> Batch:
    """Create a batch of two images of 80 x 40 pixels with boxes, letterboxed to 40 x 40."""
    boxes = [
        box_targets([[4, 2, 20, 15]], [1]),
        box_targets([[0, 0, 10, 10], [20, 5, 40, 20]], [0, 2], [False, True]),
    ]
    targets = [replace(each, area=torch.full((len(each),), 400.0)) for each in boxes]
    samples = [Sample(k, f"{k}.png", (40, 80), (20, 40)) for k in range(2)]
    return Batch(torch.randint(0, 255, (2, 3, 40, 40), dtype=torch.uint8), targets, samples)


def mask_batch(masks: torch.Tensor, paths: list[str] | None = None) -> Batch:
    """Create a batch of random images with masks, (N, H, W)."""
    count, height, width = masks.shape
    samples = [Sample(i, paths[i] if paths else None, (height, width)) for i in range(count)]
    images = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
    return Batch(images, masks.to(torch.uint8), samples)


def mask_example() -> tuple[torch.Tensor, Batch]:
    """Create logits of three classes and a batch; some pixels are ignored."""
    torch.manual_seed(0)
    masks = torch.randint(0, 3, (2, 8, 8))
    masks[0, :3] = IGNORE_INDEX
    return torch.randn(2, 3, 8, 8), mask_batch(masks)


def label_batch(labels: list[int], paths: list[str] | None = None) -> Batch:
    """Create a batch of random images of 4 x 4 pixels with labels."""
    images = torch.rand(len(labels), 3, 4, 4)
    samples = [Sample(i, paths[i] if paths else None, (4, 4)) for i in range(len(labels))]
    return Batch(images, torch.tensor(labels), samples)


def make_shades(
    root: Path, classes: tuple[str, ...] = ("ash", "beech", "cedar"), count: int = 12
) -> None:
    """Write a folder of images for each class; the gray level of an image depends on its class."""
    random = np.random.default_rng(0)
    for label, class_name in enumerate(classes):
        folder = root / class_name
        folder.mkdir(parents=True)
        for number in range(count):
            shade = 40 + 60 * label
            pixels = random.integers(shade - 20, shade + 20, size=(40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03d}.png")


def write_bomb(path: Path, side: int = 60_000) -> Path:
    """Write a valid PNG of side x side black pixels: 400 kB that decode to gigabytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    deflate = zlib.compressobj(1)
    rows = bytes(100 * (1 + -(-side // 8)))
    pixels = b"".join(deflate.compress(rows) for _ in range(side // 100)) + deflate.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    path.write_bytes(
        signature + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
    return path
