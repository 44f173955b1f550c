"""Two networks that learn from each other: a loop of its own, for Lightning's knows one loss and one optimiser."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, Any, Literal, cast

import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.strategies import ParallelStrategy
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import MeanMetric

from vision_lab.core.arguments import Count, NonNegative, Range
from vision_lab.core.batch import Batch
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.protocols import GanNetworks
from vision_lab.losses.diffaugment import make_augmentations
from vision_lab.losses.gan import gradient_penalty, make_loss, r1_penalty
from vision_lab.tasks.base import Task
from vision_lab.training.lr_schedules import ReduceOnPlateau

log = logging.getLogger(__name__)

NETWORKS = ("generator", "discriminator")
"""In the order of their optimisers."""


class GanTask(Task):
    """A generator and a discriminator, each with its optimiser and its steps.

    A step is made of the slopes of ``accumulate_grad_batches`` batches, in every process: first the discriminator's,
    then, by turns, the generator's by as many batches of pictures that it makes anew. Both are logged as means over an
    epoch: losses and, by itself, the penalty; mean scores of real and made pictures; and, where a loss parts them at 0,
    how many of each are on the right side.

    Args:
        loss: ``bce`` (non-saturating, Goodfellow 2014), ``hinge`` (Lim 2017) or ``wgan_gp`` (Gulrajani 2017).
        real_label: what real pictures count as for ``bce``.
        gradient_penalty: what the slopes' distance from 1 counts for ``wgan_gp``.
        r1: what the slopes at real pictures count, for any loss (Mescheder 2018); 0: not at all.
        discriminator_steps: of the discriminator for one of the generator.
        diffaugment: changes of what the discriminator sees: colour, translation, cutout (Zhao 2020).
        generator_optim: settings of its optimiser that differ from ``optimizer``'s.
        discriminator_optim: likewise.
        ema: how much of the generator's averaged weights is kept at each step, from which samples are made; 0: they
            are made by the weights as they are.
        gradient_clip_val: largest norm of a network's slopes; None: any.
        accumulate_grad_batches: batches of which one step is made.
        arguments: what every task takes; ``network`` is a pair (``Adversarial``).

    Raises:
        ConfigurationError: where a setting is out of range.
    """

    def __init__(
        self,
        *,
        loss: Literal["bce", "hinge", "wgan_gp"],
        real_label_value: Annotated[float, Range(gt=0.5, le=1)],
        gradient_penalty_weight: NonNegative,
        r1_weight: NonNegative,
        n_critic: Count,
        diffaugment: Sequence[Literal["color", "translation", "cutout"]],
        generator_optimizer: Mapping[str, Any],
        discriminator_optimizer: Mapping[str, Any],
        ema_decay: Annotated[float, Range(ge=0, lt=1)],
        gradient_clip_val: NonNegative | None,
        accumulate_grad_batches: Count,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.automatic_optimization = False
        self.loss = make_loss(loss, real_label=real_label_value)
        self.gradient_penalty_weight = gradient_penalty_weight if loss == "wgan_gp" else 0.0
        self.r1_weight = r1_weight
        self.n_critic = n_critic
        self.augmentations = make_augmentations(diffaugment)
        self.optimizer_overrides = dict(
            zip(NETWORKS, (generator_optimizer or {}, discriminator_optimizer or {}), strict=True)
        )
        self.gradient_clip_val = gradient_clip_val or 0.0
        self.accumulate_grad_batches = accumulate_grad_batches
        self.ema_generator = (
            AveragedModel(
                self.pair.generator, multi_avg_fn=_ema_with_warmup(ema_decay), use_buffers=True
            ).requires_grad_(False)
            if ema_decay
            else None
        )
        names = ["generator_loss", "discriminator_loss", "real_score", "fake_score"]
        names += ["real_accuracy", "fake_accuracy"] if self.loss.has_zero_threshold else []
        names += ["penalty"] if self.gradient_penalty_weight or self.r1_weight else []
        self.split_metrics["on_train"] = nn.ModuleDict({name: MeanMetric() for name in names})
        self._step_complete = True
        self.accumulated_targets: list[Tensor] = []
        """The targets of each batch since the last step, of those that could be read."""
        self.last_losses: dict[str, Tensor] = {}
        """The losses of each network's last batch."""

    @property
    def pair(self) -> GanNetworks:
        """The two networks."""
        return cast(GanNetworks, self.network)

    @property
    def sampling_generator(self) -> nn.Module:
        """The generator that samples are made by."""
        return self.pair.generator if self.ema_generator is None else self.ema_generator.module

    @property
    def uses_class_labels(self) -> bool:
        return self.pair.conditional

    @property
    def step_is_complete(self) -> bool:
        return self._step_complete

    def network_state_dict(self) -> dict[str, Tensor]:
        """Both networks, the generator's weights averaged."""
        averaged = {
            f"generator.{name}": value
            for name, value in self.sampling_generator.state_dict().items()
        }
        return self.network.state_dict() | averaged

    def load_network_state_dict(self, state: Mapping[str, Tensor]) -> None:
        super().load_network_state_dict(state)
        self.sampling_generator.load_state_dict(self.pair.generator.state_dict())

    def tensorboard_charts(self) -> Mapping[str, Sequence[str]]:
        """The losses of both networks, and the scores of real and made pictures."""
        return {
            "losses": ["train/generator_loss", "train/discriminator_loss"],
            "scores": ["train/real_score", "train/fake_score"],
        }

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimiser for each network, with a rate for each of its steps."""
        if isinstance(self.schedule, ReduceOnPlateau):
            raise ConfigurationError(
                "scheduler=plateau is for one network: type scheduler=constant, cosine or steps"
            )
        if any(isinstance(callback, WeightAveraging) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            raise ConfigurationError(
                "this task averages its generator's weights by itself (task.ema_decay): type callbacks=default"
            )
        if self.trainer.max_steps > 0:
            raise ConfigurationError(
                "trainer.max_steps would count the steps of both networks: type trainer.max_epochs=..., and "
                "trainer.limit_train_batches=... for a part of an epoch"
            )
        self.total_steps()  # makes the loader, and refuses what has no end
        windows = self._steps_per_epoch() * int(self.trainer.max_epochs or 0)
        made = []
        for name, steps in zip(NETWORKS, (windows // self.n_critic, windows), strict=True):
            parameters: list[nn.Parameter] = list(getattr(self.pair, name).parameters())
            try:
                optimizer = self.optimizer(parameters, **self.optimizer_overrides[name])
            except (TypeError, ValueError) as error:
                raise ConfigurationError(
                    f"task.{name}_optim={dict(self.optimizer_overrides[name])}: {error}"
                ) from error
            scheduler = self.make_lr_scheduler(optimizer, steps=max(steps, 1))
            made.append(
                {
                    "optimizer": optimizer,
                    "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
                }
            )
        return tuple(made)  # type: ignore[return-value]

    def on_fit_start(self) -> None:
        """Warn of what the papers warn of."""
        setting = (
            "task.loss=wgan_gp"
            if self.gradient_penalty_weight
            else "task.r1_weight"
            if self.r1_weight
            else None
        )
        mixes = any(isinstance(module, _BatchNorm) for module in self.pair.discriminator.modules())
        if setting and mixes and self.global_rank == 0:
            log.warning(
                "%s looks at each picture's slope, and batch norm mixes pictures (Gulrajani 2017, section 4): "
                "type model.discriminator_norm=layer",
                setting,
            )

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Slopes of the discriminator; where they are complete its step, and by turns one of the generator."""
        generator, discriminator = cast(list[Any], self.optimizers())
        window, place = divmod(batch_idx, self.accumulate_grad_batches)
        self._step_complete = (
            place + 1 == self.accumulate_grad_batches or self.trainer.is_last_batch
        )
        if batch.samples:  # else none of its files could be read
            self.last_losses |= self._discriminator_backward(batch)
            self.accumulated_targets.append(batch.targets)
        if not self._step_complete:
            return self.last_losses
        targets, self.accumulated_targets = self.accumulated_targets, []
        if not self.trainer.strategy.reduce_boolean_decision(bool(targets), all=False):
            return self.last_losses  # no process has anything to learn from
        self._step(discriminator, self.pair.discriminator)
        if self._is_generators_turn(window):
            with _no_parameter_grad(self.pair.discriminator):
                for each in targets:
                    self.last_losses |= self._generator_backward(each)
            self._step(generator, self.pair.generator)
            if self.ema_generator is not None:
                self.ema_generator.update_parameters(self.pair.generator)
        return self.last_losses

    def on_validation_model_zero_grad(self) -> None:
        """Not within a step of several batches, whose slopes would be lost: Lightning does not know of them."""
        if self._step_complete:
            super().on_validation_model_zero_grad()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the newest losses too, which are logged until there are newer ones."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["newest"] = {name: value.cpu() for name, value in self.last_losses.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them up again."""
        super().on_load_checkpoint(checkpoint)
        self.last_losses = {
            name: value.to(self.device) for name, value in checkpoint["newest"].items()
        }

    def learning_rates(self) -> dict[str, float]:
        """The rate of each network's optimiser."""
        return {
            f"{name}_lr": optimizer.param_groups[0]["lr"]
            for name, optimizer in zip(NETWORKS, self.trainer.optimizers, strict=True)
        }

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the slopes, unscaled by now where a loss is scaled; with two optimisers Lightning does not."""
        if self.gradient_clip_val:
            self.clip_gradients(optimizer, self.gradient_clip_val)

    def on_train_epoch_end(self) -> None:
        meters = self._metrics_of("train")
        learnt = self.trainer.strategy.reduce_boolean_decision
        values = {
            name: meter.compute()
            for name, meter in meters.items()
            if learnt(meter.update_called, all=False)
        }
        for meter in meters.values():
            meter.reset()
        self.results["train"] = values
        self.log_dict({f"train/{name}": value for name, value in values.items()})

    def _metrics_of(self, split: str) -> dict[str, Any]:
        """name: what accumulates a measure of a split."""
        return dict(self.split_metrics[f"on_{split}"].items())  # type: ignore[operator]

    def _is_generators_turn(self, window: int) -> bool:
        """By where the run stands, so that nothing has to be counted."""
        return (self.current_epoch * self._steps_per_epoch() + window + 1) % self.n_critic == 0

    def _steps_per_epoch(self) -> int:
        """Steps of the discriminator in an epoch."""
        return math.ceil(self.trainer.num_training_batches / self.accumulate_grad_batches)

    def _discriminator_backward(self, batch: Batch) -> dict[str, Tensor]:
        """Slopes by real pictures and by as many made ones, of the same classes."""
        labels = batch.targets if self.pair.conditional else None
        pixels = batch.images.to(self.mean.dtype)
        with torch.no_grad():
            fake = self._augment(self.pair.generator(self._latents(len(pixels)), labels)).to(
                pixels.dtype
            )
        real = self._augment(pixels.div_(255).sub_(self.mean).div_(self.std))

        def scores(pictures: Tensor) -> Tensor:
            return self.pair.discriminator(pictures, labels).float()

        of_real, of_fake = scores(real), scores(fake)
        loss = self.loss.discriminator(of_real, of_fake)
        penalty = torch.zeros_like(loss)
        if self.gradient_penalty_weight:
            penalty = penalty + self.gradient_penalty_weight * gradient_penalty(scores, real, fake)
        if self.r1_weight:
            penalty = penalty + self.r1_weight * r1_penalty(scores, real)
        self._backward(loss + penalty)
        measured = {
            "discriminator_loss": loss,
            "penalty": penalty,
            "real_score": of_real.mean(),
            "fake_score": of_fake.mean(),
            "real_accuracy": (of_real > 0).float().mean(),
            "fake_accuracy": (of_fake < 0).float().mean(),
        }
        return self._record(measured, weight=len(pixels), newest=("discriminator_loss", "penalty"))

    def _generator_backward(self, targets: Tensor) -> dict[str, Tensor]:
        """Slopes of the generator by as many made pictures, of classes drawn from the batch's."""
        count = len(targets)
        labels = (
            targets[torch.randint(count, (count,), device=self.device)]
            if self.pair.conditional
            else None
        )
        fake = self._augment(self.pair.generator(self._latents(count), labels))
        loss = self.loss.generator(self.pair.discriminator(fake, labels).float())
        self._backward(loss)
        return self._record({"generator_loss": loss}, weight=count, newest=("generator_loss",))

    def _latents(self, count: int) -> Tensor:
        """By the step's own random numbers."""
        return torch.randn(count, self.pair.latent_dim, device=self.device)

    def _augment(self, pictures: Tensor) -> Tensor:
        for change in self.augmentations:
            pictures = change(pictures)
        return pictures

    def _record(
        self, values: Mapping[str, Tensor], *, weight: int, newest: Sequence[str]
    ) -> dict[str, Tensor]:
        """Measure what there is a meter for; some of these values, without their slopes."""
        meters = {
            name: meter for name, meter in self._metrics_of("train").items() if name in values
        }
        for name, meter in meters.items():
            meter.update(values[name].detach(), weight=weight)
        return {name: values[name].detach() for name in newest if name in meters}

    def _backward(self, loss: Tensor) -> None:
        """Slopes in this process alone: DDP waits for those of all parameters, of which one network has a part."""
        strategy = self.trainer.strategy
        alone: AbstractContextManager[None] = (
            strategy.block_backward_sync()
            if isinstance(strategy, ParallelStrategy)
            else nullcontext()
        )
        with alone:
            self.manual_backward(loss / self.accumulate_grad_batches)

    def _step(self, optimizer: Any, network: nn.Module) -> None:
        """One step by the mean slopes of all processes, and the rate of the next."""
        if self.trainer.world_size > 1:
            slopes = []
            for parameter in network.parameters():
                parameter.grad = (
                    torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                )
                slopes.append(parameter.grad)
            mean = self.trainer.strategy.reduce(parameters_to_vector(slopes), reduce_op="mean")
            vector_to_parameters(cast(Tensor, mean), slopes)
        optimizer.step()
        optimizer.zero_grad()
        place = 0 if network is self.pair.generator else 1
        self.lr_schedulers()[place].step()  # type: ignore[index]


@contextmanager
def _no_parameter_grad(network: nn.Module) -> Iterator[None]:
    """Slopes pass through, and none are kept."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _ema_with_warmup(decay: float) -> Any:
    """torch's exponential average, which forgets faster while it is young: else its first weights would stay long."""

    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        young = (1 + int(count)) / (10 + int(count))
        get_ema_multi_avg_fn(min(decay, young))(averaged, current, count)

    return update
