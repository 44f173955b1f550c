"""Common to all tasks: schedules and seeds by step, frozen layers."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau, StepLR
from torch.utils.data import TensorDataset

from tests.builders import classification_task, make_source
from vision_lab.core.arguments import ArgumentError
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.spec import DataSpec
from vision_lab.data.module import DataModule
from vision_lab.models.architectures.cifar_resnet import CifarResNet
from vision_lab.models.backbone import build_backbone
from vision_lab.training.lr_schedules import Cosine, SchedulerFactory


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
        source=make_source(train=Noise, val=Noise, test=Noise),
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
    schedule = SchedulerFactory(partial(ReduceLROnPlateau, patience=0, factor=0.5))
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


class Epochs:
    """A scheduler with timm's interface: the learning rate is the number of the epoch."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self, epoch: int, metric: float | None = None) -> None:
        self.optimizer.param_groups[0]["lr"] = float(epoch)

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        self.optimizer.param_groups[0]["lr"] = 100.0 + num_updates

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None: ...


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (SchedulerFactory(partial(ExponentialLR, gamma=0.5)), 0.1 * 0.5**2),
        (SchedulerFactory(partial(StepLR, step_size=3, gamma=0.1), "step"), 0.1 * 0.1**2),
        (SchedulerFactory(Epochs), 2.0),
        (SchedulerFactory(Epochs, "step"), 108.0),
    ],
    ids=["torch", "torch by step", "timm", "timm by step"],
)
def test_schedulers_of_torch_and_timm(
    spec: DataSpec, tmp_path, factory: SchedulerFactory, expected: float
):
    """Over two epochs of four steps."""
    made = classification_task(
        spec, network=linear(), schedule=factory, optimizer=partial(torch.optim.SGD, lr=0.1)
    )
    fitted(spec, made, tmp_path, epochs=2)
    assert made.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(expected)


def test_a_scheduler_that_rejects_its_arguments_is_named(spec: DataSpec, tmp_path):
    made = classification_task(spec, network=linear(), schedule=SchedulerFactory(StepLR))
    with pytest.raises(ArgumentError, match=r"arguments that the scheduler accepts.*step_size"):
        fitted(spec, made, tmp_path)


def test_the_optimizer_receives_names_of_parameters(spec: DataSpec, tmp_path):
    """And those of a loss that is trained too; frozen ones are left out."""

    class Scaled(nn.CrossEntropyLoss):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, logits, targets):
            return super().forward(logits * self.scale, targets)

    network = linear()
    network[-1].bias.requires_grad_(False)
    made = classification_task(spec, network=network, loss=Scaled())
    fitted(spec, made, tmp_path, epochs=1)
    assert made.trainer.optimizers[0].param_groups[0]["param_names"] == ["1.weight", "loss.scale"]
    assert made.loss.scale != 1
