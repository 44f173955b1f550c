"""A GAN of two small networks for images of one gray level each, and its trainer."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from tests.builders import make_source
from vision_lab.core.protocols import LoadedWeights
from vision_lab.core.spec import DataSpec
from vision_lab.data.module import DataModule
from vision_lab.losses.gan import NonSaturating
from vision_lab.tasks.generation import GenerationTask
from vision_lab.training.lr_schedules import Constant

SHADES = DataSpec(
    target_type="labels",
    class_names=("dark", "light"),
    num_classes=2,
    image_size=(4, 4),
    channels=1,
    mean=(0.5,),
    std=(0.5,),
)


class Shades(TensorDataset):
    """Images (1, 4, 4) of one gray level each, normally distributed around 100 or 190 by class."""

    def __init__(self, count: int = 256) -> None:
        generator = torch.Generator().manual_seed(0)
        self.targets = torch.arange(count) % 2
        shade = 100 + 90 * self.targets + 12 * torch.randn(count, generator=generator)
        super().__init__(
            shade.round().to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4), self.targets
        )


class Pair(nn.Module):
    """Two layers each; a label is one more input."""

    loaded: LoadedWeights | None = None

    def __init__(self, *, conditional: bool = False, norm: bool = False) -> None:
        super().__init__()
        self.latent_dim = 2
        self.conditional = conditional
        self.generator = Maker(conditional)
        self.discriminator = Judge(conditional, norm)


class Maker(nn.Module):
    def __init__(self, conditional: bool) -> None:
        super().__init__()
        self.conditional = conditional
        self.layers = nn.Sequential(
            nn.Linear(2 + conditional, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1)
        )

    def forward(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        given = (
            torch.cat([latents, labels[:, None].float()], dim=1) if self.conditional else latents
        )
        return self.layers(given).tanh().view(-1, 1, 1, 1).expand(-1, 1, 4, 4)


class Judge(nn.Module):
    def __init__(self, conditional: bool, norm: bool) -> None:
        super().__init__()
        self.conditional = conditional
        first = nn.Linear(16 + conditional, 32)
        between = nn.BatchNorm1d(32) if norm else nn.Identity()
        self.layers = nn.Sequential(first, between, nn.LeakyReLU(0.2), nn.Linear(32, 1))

    def forward(self, images: Tensor, labels: Tensor | None) -> Tensor:
        given = images.flatten(1)
        if self.conditional:
            given = torch.cat([given, labels[:, None].float()], dim=1)
        return self.layers(given).flatten()


class Shade:
    """A single feature: the gray level of an image, in tenths."""

    name = "shade"

    def __call__(self, images: Tensor) -> Tensor:
        scale = 255 if images.dtype == torch.uint8 else 1
        return 10 * images.float().mean(dim=(1, 2, 3))[:, None] / scale


shade = Shade()


def generate(network: nn.Module | None = None, **changes: Any) -> GenerationTask:
    settings: dict[str, Any] = {
        "loss": NonSaturating(),
        "r1_weight": 0.0,
        "n_critic": 1,
        "generator_optimizer": {},
        "discriminator_optimizer": {},
        "ema_decay": 0.9,
        "gradient_clip_val": None,
        "accumulate_grad_batches": 1,
        "feature_extractor": shade,
        "num_samples": 200,
        "num_preview": 8,
        "network": network or Pair(),
        "spec": SHADES,
        "optimizer": partial(torch.optim.Adam, lr=5e-3, betas=(0.5, 0.999)),
        "schedule": Constant(),
        "monitor": "val/fid",
        "monitor_mode": "min",
        "seed": 0,
    }
    return GenerationTask(**settings | changes)


class Trainer(pl.Trainer):
    """Gives the task its data, as ``build.task`` does."""

    def fit(self, model: GenerationTask, *, datamodule: DataModule) -> None:  # type: ignore[override]
        model.training_data = datamodule
        super().fit(model, datamodule=datamodule)

    def validate(self, model: GenerationTask, *, datamodule: DataModule, **settings: Any) -> Any:  # type: ignore[override]
        model.training_data = datamodule
        return super().validate(model, datamodule=datamodule, **settings)

    def test(self, model: GenerationTask, *, datamodule: DataModule, **settings: Any) -> Any:  # type: ignore[override]
        model.training_data = datamodule
        return super().test(model, datamodule=datamodule, **settings)


def trainer(folder: Path, *, callbacks: Sequence[pl.Callback] = (), **changes: Any) -> pl.Trainer:
    settings: dict[str, Any] = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "callbacks": list(callbacks),
        "default_root_dir": folder,
    }
    return Trainer(**settings | changes)


def data(**changes: Any) -> DataModule:
    splits: dict[str, Any] = {
        "train": Shades,
        "val": partial(Shades, 64),
        "test": partial(Shades, 64),
    }
    for split in set(splits) & set(changes):
        splits[split] = changes.pop(split)
    settings: dict[str, Any] = {
        "spec": SHADES,
        "source": make_source(**splits),
        "transforms": {"train": [], "eval": []},
        "batch_size": 32,
        "num_workers": 0,
        "on_error": "raise",
        "seed": 0,
    }
    return DataModule(**settings | changes)
