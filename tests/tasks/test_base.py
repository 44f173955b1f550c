"""Common to all tasks: schedules and seeds by step, frozen layers."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import TensorDataset

from tests.builders import classification_task
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.spec import DataSpec
from vision_lab.data.module import DataModule
from vision_lab.models.architectures.cifar_resnet import CifarResNet
from vision_lab.models.backbone import build_backbone
from vision_lab.training.lr_schedules import Cosine


class Noise(TensorDataset):
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.targets = torch.arange(24) % 4
        images = torch.randint(0, 255, (24, 3, 32, 32), generator=generator, dtype=torch.uint8)
        super().__init__(images, self.targets)


class Watch(pl.Callback):
    def __init__(self) -> None:
        self.rates: list[float] = []
        self.draws: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.draws.append(torch.rand(1).item())


def fitted(spec: DataSpec, made: pl.LightningModule, tmp_path, epochs: int = 2) -> Watch:
    data = DataModule(
        spec=spec,
        train=Noise,
        val=Noise,
        test=Noise,
        transforms={"train": [], "eval": []},
        batch_size=6,
        num_workers=0,
        on_error="raise",
        seed=0,
    )
    watch = Watch()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[watch],
        default_root_dir=tmp_path,
    )
    made.training_data = data
    trainer.fit(made, datamodule=data)
    return watch


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))


def test_the_learning_rate_follows_progress_step_by_step(spec: DataSpec, tmp_path):
    made = classification_task(
        spec,
        network=linear(),
        schedule=Cosine(warmup_fraction=0.0),
        optimizer=partial(torch.optim.SGD, lr=0.5),
    )
    rates = fitted(spec, made, tmp_path).rates
    assert len(rates) == 8
    assert rates == pytest.approx(
        [0.5 * Cosine(warmup_fraction=0.0)(step / 7) for step in range(8)]
    )


def test_a_plateau_scheduler_steps_per_epoch(spec: DataSpec, tmp_path):
    schedule = partial(ReduceLROnPlateau, patience=0, factor=0.5)
    made = classification_task(
        spec, network=linear(), schedule=schedule, optimizer=partial(torch.optim.SGD, lr=0.0)
    )
    made.optimizer = partial(torch.optim.SGD, lr=1e-12)
    rates = fitted(spec, made, tmp_path, epochs=3).rates
    assert rates == pytest.approx([1e-12] * 8 + [5e-13] * 4)


def test_random_numbers_of_a_step_depend_on_seed_epoch_and_batch_only(spec: DataSpec, tmp_path):
    draws = [
        fitted(spec, classification_task(spec, network=linear(), seed=seed), tmp_path).draws
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    assert len(set(draws[0])) == 8


def test_frozen_batch_norm_keeps_its_statistics_through_training(spec: DataSpec, tmp_path):
    made = build_backbone(
        spec,
        network=partial(CifarResNet, depth=20),
        stem="imagenet",
        weights=None,
        freeze="backbone",
    ).network
    before = {key: value.clone() for key, value in made.state_dict().items()}
    fitted(
        spec,
        classification_task(spec, network=made, optimizer=partial(torch.optim.SGD, lr=0.1)),
        tmp_path,
    )
    changed = {
        key for key, value in made.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed == {"fc.weight", "fc.bias"}


def test_a_fully_frozen_network_is_refused(spec: DataSpec, tmp_path):
    with pytest.raises(
        ConfigurationError, match="the network is frozen: it has no parameter to train"
    ):
        fitted(spec, classification_task(spec, network=linear().requires_grad_(False)), tmp_path)


def test_auto_class_weights_come_from_the_training_labels(spec: DataSpec, tmp_path):
    made = classification_task(spec, network=linear(), class_weights="auto")
    assert made.loss.weight is None
    fitted(spec, made, tmp_path, epochs=1)
    assert torch.allclose(made.loss.weight, torch.ones(4))
