"""GAN training: which network is updated, with which gradients and learning rate."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tests.tasks.tiny_gan import Pair, Shades, data, generate, trainer
from vision_lab import build
from vision_lab.core.arguments import ArgumentError
from vision_lab.core.errors import ConfigurationError, UnreadableFileError
from vision_lab.losses.diffaugment import translation
from vision_lab.losses.gan import AdversarialLoss, Hinge, NonSaturating, Wasserstein
from vision_lab.tasks.generation import GenerationTask
from vision_lab.training.lr_schedules import Cosine, SchedulerFactory

LOSSES: dict[str, AdversarialLoss] = {
    "bce": NonSaturating(),
    "hinge": Hinge(),
    "wgan_gp": Wasserstein(gradient_penalty_weight=1.0),
}


class Watch(pl.Callback):
    """Records after each batch which networks have changed, and both learning rates."""

    def __init__(self) -> None:
        self.before: dict[str, torch.Tensor] = {}
        self.changed: list[str] = []
        self.step_is_complete: list[bool] = []
        self.rates: list[list[float]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = {name: self._of(pl_module, name) for name in ("generator", "discriminator")}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        moved = [
            name[0]
            for name, was in self.before.items()
            if not torch.equal(was, self._of(pl_module, name))
        ]
        self.changed.append("".join(moved))
        self.step_is_complete.append(pl_module.step_is_complete)
        self.rates.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers])

    def _of(self, task: GenerationTask, name: str) -> torch.Tensor:
        return nn.utils.parameters_to_vector(getattr(task.pair, name).parameters()).clone()


def watched(folder: Path, task: GenerationTask, **settings: Any) -> Watch:
    watch = Watch()
    trainer(folder, callbacks=[watch], **settings).fit(task, datamodule=data())
    return watch


@pytest.mark.parametrize(
    ("changes", "moves"),
    [
        ({}, "gd gd gd gd gd gd gd gd"),
        ({"n_critic": 3}, "d d gd d d gd d d"),
        ({"accumulate_grad_batches": 3}, ". . gd . . gd . gd"),  # the last two make a step too
        ({"accumulate_grad_batches": 3, "n_critic": 2}, ". . d . . gd . d"),
    ],
)
def test_the_updated_network_depends_on_the_step(
    tmp_path: Path, changes: dict[str, Any], moves: str
):
    torch.manual_seed(0)
    watch = watched(tmp_path, generate(**changes))
    assert watch.changed == moves.replace(".", "").split(" ")
    assert watch.step_is_complete == [bool(moved) for moved in watch.changed]


def test_updates_alternate_across_epochs(tmp_path: Path):
    watch = watched(tmp_path, generate(n_critic=3), max_epochs=2)
    assert " ".join(watch.changed) == "d d gd d d gd d d gd d d gd d d gd d"


def test_each_network_has_its_learning_rate_and_schedule(tmp_path: Path):
    """Over 8 steps of the discriminator and 4 of the generator."""
    schedule = Cosine(warmup_fraction=0.0)
    task = generate(schedule=schedule, generator_optimizer={"lr": 0.5}, n_critic=2)
    rates = watched(tmp_path, task).rates
    assert [rate[1] for rate in rates] == pytest.approx(
        [5e-3 * schedule(min(step / 7, 1)) for step in range(1, 9)]
    )
    steps = [0, 1, 1, 2, 2, 3, 3, 4]
    assert [rate[0] for rate in rates] == pytest.approx(
        [0.5 * schedule(min(step / 3, 1)) for step in steps]
    )


def test_gradients_of_each_network_are_clipped_separately(tmp_path: Path):
    lengths: list[float] = []

    class Measured(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            lengths.append(
                nn.utils.get_total_norm([p.grad for p in self.param_groups[0]["params"]]).item()
            )

    def fit(clip: float | None) -> list[float]:
        lengths.clear()
        task = generate(
            gradient_clip_val=clip, optimizer=lambda parameters: Measured(parameters, lr=0.1)
        )
        trainer(tmp_path).fit(task, datamodule=data())
        return lengths

    assert max(fit(None)) > 0.02
    assert len(fit(0.01)) == 16
    assert max(lengths) == pytest.approx(0.01, rel=1e-3)


def test_a_schedule_has_the_number_of_training_steps(tmp_path: Path):
    """Seven batches per epoch are two windows of four, of which the last is incomplete."""
    task = generate(accumulate_grad_batches=4, schedule=Cosine(warmup_fraction=0.0))
    watch = watched(tmp_path, task, limit_train_batches=7, max_epochs=3)
    rates = [
        rate[1] / 5e-3
        for rate, whole in zip(watch.rates, watch.step_is_complete, strict=True)
        if whole
    ]
    assert rates == pytest.approx(
        [Cosine(warmup_fraction=0.0)(min(step / 5, 1)) for step in range(1, 7)]
    )


def test_a_validation_within_an_accumulated_step_keeps_gradients(tmp_path: Path):
    """Four batches per step and a validation after every second one: the same networks as without."""
    weights = []
    for every in (1.0, 2):
        torch.manual_seed(0)
        task = generate(accumulate_grad_batches=4)
        trainer(tmp_path, val_check_interval=every).fit(task, datamodule=data())
        weights.append(nn.utils.parameters_to_vector(task.network.parameters()))
    assert torch.equal(*weights)


def test_batches_without_images_are_skipped(tmp_path: Path):
    """An empty batch in a window, and a window of empty batches, which makes no step."""

    class Bad(Shades):
        def __getitem__(self, index):
            if index in wanting:
                raise UnreadableFileError(f"{index}", "torn")
            return super().__getitem__(index)

    made = data(train=Bad, on_error="skip", shuffle=False)
    wanting: set[int] = set()
    made.prepare_data()
    made.setup()
    order = made.train_dataloader().batch_sampler.batches()
    wanting.update(order[1], order[4], order[5])
    watch = Watch()
    trainer(tmp_path, callbacks=[watch]).fit(generate(accumulate_grad_batches=2), datamodule=made)
    assert watch.changed == ["", "gd", "", "gd", "", "", "", "gd"]


def test_the_progress_bar_shows_the_newest_losses(tmp_path: Path):
    logged: list[set[str]] = []

    class Told(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            logged.append(set(outputs))

    task = generate(n_critic=3, r1_weight=0.1)
    trainer(tmp_path, callbacks=[Told()], limit_train_batches=5).fit(task, datamodule=data())
    losses = {"discriminator_loss", "penalty"}
    assert logged == [losses, losses, *[losses | {"generator_loss"}] * 3]


@pytest.mark.parametrize("loss", ["bce", "wgan_gp"])
def test_mixed_precision(tmp_path: Path, loss: str):
    task = generate(loss=LOSSES[loss], r1_weight=0.1)
    trainer(tmp_path, precision="bf16-mixed", limit_train_batches=4).fit(task, datamodule=data())
    assert all(parameter.isfinite().all() for parameter in task.network.parameters())
    assert task.results["val"]["fid"].isfinite()
    assert task.sample_images()[0].dtype == torch.uint8


def test_accumulated_gradients_equal_those_of_the_whole_batch(tmp_path: Path):
    """Without batch norm, two batches of 16 equal one of 32."""
    stepped = []
    for size, together in ((32, 1), (16, 2)):
        torch.manual_seed(0)
        task = generate(
            accumulate_grad_batches=together, optimizer=lambda p: torch.optim.SGD(p, lr=0.1)
        )
        task._draw_latents = lambda count: torch.ones(count, 2)  # type: ignore[method-assign]  # the same in both
        trainer(tmp_path, limit_train_batches=together).fit(task, datamodule=data(batch_size=size))
        stepped.append(nn.utils.parameters_to_vector(task.pair.discriminator.parameters()))
    assert torch.allclose(*stepped, atol=1e-6)


def test_the_averaged_generator_is_saved(tmp_path: Path):
    task = generate(ema_decay=0.5)
    trainer(tmp_path).fit(task, datamodule=data())
    now, mean = (
        network.state_dict()["layers.3.weight"]
        for network in (task.pair.generator, task.sampling_generator)
    )
    assert not torch.equal(now, mean)
    assert (now - mean).abs().max() < 0.1
    kept = task.network_state_dict()
    assert kept.keys() == task.network.state_dict().keys()
    assert torch.equal(kept["generator.layers.3.weight"], mean)
    other = generate(ema_decay=0.5)
    other.load_network_state_dict(kept)
    places = range(4)
    assert torch.equal(
        other.generate(other.sample_latents(places)), task.generate(task.sample_latents(places))
    )


def test_the_averaged_weights_are_not_biased_to_the_initial_ones(tmp_path: Path):
    task = generate(ema_decay=0.9999)
    first = task.pair.generator.state_dict()["layers.3.weight"].clone()
    trainer(tmp_path, max_epochs=4).fit(task, datamodule=data())
    now, mean = (
        network.state_dict()["layers.3.weight"]
        for network in (task.pair.generator, task.sampling_generator)
    )
    assert (now - mean).norm() < 0.5 * (now - first).norm()


@pytest.mark.parametrize(
    ("loss", "changes"),
    [
        ("bce", {}),
        pytest.param("hinge", {}, marks=pytest.mark.slow),
        ("wgan_gp", {"n_critic": 3}),
        pytest.param("bce", {"r1_weight": 0.1}, marks=pytest.mark.slow),
        pytest.param("hinge", {"diffaugment": [translation]}, marks=pytest.mark.slow),
    ],
)
def test_each_loss_approaches_the_target_distribution(
    tmp_path: Path, loss: str, changes: dict[str, Any]
):
    """The gray levels have mean 145 and standard deviation 47; moments are compared."""
    torch.manual_seed(0)
    task = generate(loss=LOSSES[loss], **changes)
    shades = Shades().tensors[0].float()

    def apart() -> float:
        made = task.generate(task.sample_latents(range(400))).float()
        return abs(made.mean() - shades.mean()).item() + abs(made.std() - shades.std()).item()

    before = apart()
    trainer(tmp_path, max_epochs=40, limit_val_batches=0).fit(task, datamodule=data())
    assert before > 30
    assert apart() < 0.4 * before


def test_a_conditional_gan_separates_classes(tmp_path: Path):
    torch.manual_seed(0)
    task = generate(Pair(conditional=True))
    trainer(tmp_path, max_epochs=40, limit_val_batches=0).fit(task, datamodule=data())
    dark, light = (
        task.generate(task.sample_latents(range(100), labels=[label] * 100)).float().mean()
        for label in (0, 1)
    )
    assert dark < 130 < 160 < light


@pytest.mark.parametrize("changes", [{"loss": Wasserstein()}, {"r1_weight": 0.1}])
@pytest.mark.parametrize("norm", [False, True])
def test_gradient_penalties_with_batch_norm_give_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], norm: bool
):
    task = generate(Pair(norm=norm), **changes)
    trainer(tmp_path, limit_train_batches=1).fit(task, datamodule=data())
    assert ("the penalty is for the gradient of each image" in caplog.text) == norm
    assert ("choose a discriminator with layer norm" in caplog.text) == norm


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"schedule": SchedulerFactory(partial(ReduceLROnPlateau))},
            "schedule=plateau: type a schedule that follows",
        ),
        ({"generator_optimizer": {"momentum": 0.9}}, "generator_optimizer=.*momentum"),
        ({"discriminator_optimizer": {"lr": -1.0}}, "discriminator_optimizer=.*Invalid learning"),
    ],
)
def test_incompatible_arguments_are_refused(tmp_path: Path, changes: dict[str, Any], text: str):
    with pytest.raises(ArgumentError, match=text):
        trainer(tmp_path).fit(generate(**changes), datamodule=data())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"max_steps": 5}, r"trainer\.max_steps counts the steps of all networks of this task"),
        ({"callbacks": [EMAWeightAveraging()]}, "callbacks that average weights average those of"),
        ({"max_epochs": -1}, "a schedule by progress requires an end: type trainer.max_epochs="),
    ],
)
def test_settings_of_the_trainer_are_checked(tmp_path: Path, changes: dict[str, Any], text: str):
    with pytest.raises(ConfigurationError, match=text):
        build.check_training(generate(), trainer(tmp_path, **changes))
