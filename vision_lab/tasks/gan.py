"""Adversarial training of a generator and a discriminator, with manual optimization."""

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
from vision_lab.losses.diffaugment import get_augmentations
from vision_lab.losses.gan import gradient_penalty, make_loss, r1_penalty
from vision_lab.tasks.base import Task

log = logging.getLogger(__name__)

NETWORKS = ("generator", "discriminator")
"""The networks, in the order of their optimizers."""


class GanTask(Task):
    """A generator and a discriminator, each with its own optimizer.

    Each optimizer step accumulates gradients over ``accumulate_grad_batches`` batches on every
    rank: first the discriminator's, then, every ``n_critic`` steps, the generator's on as many
    newly generated images. Logged are means over an epoch: losses, the penalty, scores of real and
    generated images and, if the loss separates them at 0, the discriminator's accuracy on each.

    Args:
        loss: ``bce`` (non-saturating, Goodfellow 2014), ``hinge`` (Lim 2017) or ``wgan_gp``
            (Gulrajani 2017).
        real_label_value: target of real images for ``bce``.
        gradient_penalty_weight: weight of the gradient penalty of ``wgan_gp``.
        r1_weight: weight of the R1 penalty, for any loss (Mescheder 2018); 0 to disable.
        n_critic: number of discriminator steps per generator step.
        diffaugment: augmentations of the discriminator's inputs: color, translation, cutout (Zhao
            2020).
        generator_optimizer: settings of the generator's optimizer that override the config's.
        discriminator_optimizer: settings of the discriminator's optimizer, likewise.
        ema_decay: decay of the exponential moving average of the generator's weights, with which
            samples are generated; 0 to disable.
        gradient_clip_val: maximum gradient norm of each network; None to disable.
        accumulate_grad_batches: number of batches per optimizer step.
        arguments: arguments of ``Task``; ``network`` is a ``GanNetworks``.

    Raises:
        ConfigurationError: if a setting is invalid.
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
        self.augmentations = get_augmentations(diffaugment)
        self.optimizer_overrides = {
            "generator": generator_optimizer or {},
            "discriminator": discriminator_optimizer or {},
        }
        self.gradient_clip_val = gradient_clip_val or 0.0
        self.accumulate_grad_batches = accumulate_grad_batches
        self.ema_generator = self._make_ema_generator(ema_decay)
        names = ["generator_loss", "discriminator_loss", "real_score", "fake_score"]
        if self.loss.has_zero_threshold:
            names += ["real_accuracy", "fake_accuracy"]
        if self.gradient_penalty_weight or self.r1_weight:
            names += ["penalty"]
        self.split_metrics["on_train"] = nn.ModuleDict({name: MeanMetric() for name in names})
        self._step_complete = True
        self.accumulated_targets: list[Tensor] = []
        """Targets of each readable batch since the last optimizer step."""
        self.last_losses: dict[str, Tensor] = {}
        """Losses of the last batch of each network."""

    def _make_ema_generator(self, decay: float) -> AveragedModel | None:
        if not decay:
            return None
        average = AveragedModel(
            self.pair.generator, multi_avg_fn=_ema_with_warmup(decay), use_buffers=True
        )
        return average.requires_grad_(False)

    @property
    def pair(self) -> GanNetworks:
        """The two networks."""
        return cast(GanNetworks, self.network)

    @property
    def sampling_generator(self) -> nn.Module:
        """The generator with which samples are generated: the averaged one, if there is one."""
        if self.ema_generator is None:
            return self.pair.generator
        return self.ema_generator.module

    @property
    def uses_class_labels(self) -> bool:
        return self.pair.conditional

    @property
    def step_is_complete(self) -> bool:
        return self._step_complete

    def network_state_dict(self) -> dict[str, Tensor]:
        """Return the weights of both networks, with the averaged weights of the generator."""
        state = self.network.state_dict()
        for name, value in self.sampling_generator.state_dict().items():
            state[f"generator.{name}"] = value
        return state

    def load_network_state_dict(self, state: Mapping[str, Tensor]) -> None:
        super().load_network_state_dict(state)
        self.sampling_generator.load_state_dict(self.pair.generator.state_dict())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create an optimizer for each network, with a scheduler that follows its own steps."""
        self._check_settings()
        self.total_steps()  # creates the data loader, and raises an error if there is no end
        discriminator_steps = self._steps_per_epoch() * int(self.trainer.max_epochs or 0)
        generator_steps = discriminator_steps // self.n_critic
        settings = []
        for name, steps in zip(NETWORKS, (generator_steps, discriminator_steps), strict=True):
            parameters: list[nn.Parameter] = list(getattr(self.pair, name).parameters())
            overrides = self.optimizer_overrides[name]
            try:
                optimizer = self.optimizer(parameters, **overrides)
            except (TypeError, ValueError) as error:
                message = f"task.{name}_optimizer={dict(overrides)}: {error}"
                raise ConfigurationError(message) from error
            scheduler = self.make_lr_scheduler(optimizer, steps=max(steps, 1))
            lr_scheduler = {"scheduler": scheduler, "interval": "step"}
            settings.append({"optimizer": optimizer, "lr_scheduler": lr_scheduler})
        return tuple(settings)  # type: ignore[return-value]

    def _check_settings(self) -> None:
        """Check that the settings of other groups are supported by GAN training.

        Raises:
            ConfigurationError: if one is not.
        """
        if self.uses_plateau:
            raise ConfigurationError(
                "scheduler=plateau is not supported for two networks: type scheduler=constant, "
                "cosine or multistep"
            )
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        if any(isinstance(callback, WeightAveraging) for callback in callbacks):
            raise ConfigurationError(
                "callbacks that average weights are not supported, because the task averages those "
                "of the generator (task.ema_decay): type callbacks=default"
            )
        if self.trainer.max_steps > 0:
            raise ConfigurationError(
                "trainer.max_steps is not supported, because it counts the steps of both networks: "
                "type trainer.max_epochs=..., and trainer.limit_train_batches=... for part of an "
                "epoch"
            )

    def on_fit_start(self) -> None:
        """Warn about penalties of a discriminator with batch norm."""
        setting = None
        if self.gradient_penalty_weight:
            setting = "task.loss=wgan_gp"
        elif self.r1_weight:
            setting = "task.r1_weight"
        modules = self.pair.discriminator.modules()
        has_batch_norm = any(isinstance(module, _BatchNorm) for module in modules)
        if setting and has_batch_norm and self.global_rank == 0:
            log.warning(
                "%s penalizes the gradient of each image, but batch norm makes it depend on the "
                "whole batch (Gulrajani 2017, section 4): type model.discriminator_norm=layer",
                setting,
            )

    def training_step(
        self,
        batch: Batch,
        batch_idx: int,
    ) -> dict[str, Tensor]:
        """Accumulate gradients, and step the optimizers when a window of batches is complete."""
        window, index = divmod(batch_idx, self.accumulate_grad_batches)
        is_last_of_window = index + 1 == self.accumulate_grad_batches
        self._step_complete = is_last_of_window or self.trainer.is_last_batch
        if batch.samples:  # at least one of its files is readable
            self.last_losses |= self._discriminator_backward(batch)
            self.accumulated_targets.append(batch.targets)
        if not self._step_complete:
            return self.last_losses
        targets, self.accumulated_targets = self.accumulated_targets, []
        if not self.trainer.strategy.reduce_boolean_decision(bool(targets), all=False):
            return self.last_losses  # no rank has any data
        generator_optimizer, discriminator_optimizer = cast(list[Any], self.optimizers())
        self._step(discriminator_optimizer, self.pair.discriminator)
        if self._is_generator_step(window):
            with _no_parameter_grad(self.pair.discriminator):
                for batch_targets in targets:
                    self.last_losses |= self._generator_backward(batch_targets)
            self._step(generator_optimizer, self.pair.generator)
            if self.ema_generator is not None:
                self.ema_generator.update_parameters(self.pair.generator)
        return self.last_losses

    def on_validation_model_zero_grad(self) -> None:
        """Keep accumulated gradients, of which Lightning does not know, during a validation."""
        if self._step_complete:
            super().on_validation_model_zero_grad()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the last losses too, because they are logged until there are new ones."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["last_losses"] = {name: value.cpu() for name, value in self.last_losses.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        losses = checkpoint["last_losses"]
        self.last_losses = {name: value.to(self.device) for name, value in losses.items()}

    def learning_rates(self) -> dict[str, float]:
        optimizers = zip(NETWORKS, self.trainer.optimizers, strict=True)
        return {f"{name}_lr": optimizer.param_groups[0]["lr"] for name, optimizer in optimizers}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the unscaled gradients; with manual optimization Lightning does not."""
        if self.gradient_clip_val:
            self.clip_gradients(optimizer, self.gradient_clip_val)

    def on_train_epoch_end(self) -> None:
        values = {}
        for name, metric in self._metrics_of("train").items():
            # All ranks must compute the same metrics, which synchronizes them.
            if self.trainer.strategy.reduce_boolean_decision(metric.update_called, all=False):
                values[name] = metric.compute()
        for metric in self._metrics_of("train").values():
            metric.reset()
        self.results["train"] = values
        self.log_dict({f"train/{name}": value for name, value in values.items()})

    def _metrics_of(self, split: str) -> dict[str, Any]:
        return dict(self.split_metrics[f"on_{split}"].items())  # type: ignore[operator]

    def _is_generator_step(self, window: int) -> bool:
        """Return whether a window of batches ends with a generator step.

        This is a function of the position in training, so that no counter has to be stored.
        """
        windows_before = self.current_epoch * self._steps_per_epoch()
        return (windows_before + window + 1) % self.n_critic == 0

    def _steps_per_epoch(self) -> int:
        """Return the number of discriminator steps in an epoch."""
        return math.ceil(self.trainer.num_training_batches / self.accumulate_grad_batches)

    def _discriminator_backward(self, batch: Batch) -> dict[str, Tensor]:
        """Accumulate gradients of the discriminator, on real and as many generated images."""
        labels = batch.targets if self.pair.conditional else None
        pixels = batch.images.to(self.mean.dtype)
        with torch.no_grad():
            generated = self.pair.generator(self._draw_latents(len(pixels)), labels)
            fake = self._augment(generated).to(pixels.dtype)
        real = self._augment(pixels.div_(255).sub_(self.mean).div_(self.std))

        def score(images: Tensor) -> Tensor:
            return self.pair.discriminator(images, labels).float()

        real_scores, fake_scores = score(real), score(fake)
        loss = self.loss.discriminator(real_scores, fake_scores)
        penalty = torch.zeros_like(loss)
        if self.gradient_penalty_weight:
            penalty = penalty + self.gradient_penalty_weight * gradient_penalty(score, real, fake)
        if self.r1_weight:
            penalty = penalty + self.r1_weight * r1_penalty(score, real)
        self._backward(loss + penalty)
        metrics = {
            "discriminator_loss": loss,
            "penalty": penalty,
            "real_score": real_scores.mean(),
            "fake_score": fake_scores.mean(),
            "real_accuracy": (real_scores > 0).float().mean(),
            "fake_accuracy": (fake_scores < 0).float().mean(),
        }
        losses = ("discriminator_loss", "penalty")
        return self._update_metrics(metrics, weight=len(pixels), losses=losses)

    def _generator_backward(self, targets: Tensor) -> dict[str, Tensor]:
        """Accumulate gradients of the generator, on as many images with labels from a batch."""
        count = len(targets)
        labels = None
        if self.pair.conditional:
            labels = targets[torch.randint(count, (count,), device=self.device)]
        fake = self._augment(self.pair.generator(self._draw_latents(count), labels))
        loss = self.loss.generator(self.pair.discriminator(fake, labels).float())
        self._backward(loss)
        losses = ("generator_loss",)
        return self._update_metrics({"generator_loss": loss}, weight=count, losses=losses)

    def _draw_latents(self, count: int) -> Tensor:
        """Draw latents (count, latent_dim) from the random generator seeded for this step."""
        return torch.randn(count, self.pair.latent_dim, device=self.device)

    def _augment(self, images: Tensor) -> Tensor:
        for augmentation in self.augmentations:
            images = augmentation(images)
        return images

    def _update_metrics(
        self, values: Mapping[str, Tensor], *, weight: int, losses: Sequence[str]
    ) -> dict[str, Tensor]:
        """Update the training metrics, and return the losses among them, detached."""
        metrics = self._metrics_of("train")
        names = []
        for name in metrics:
            if name in values:
                names.append(name)
        for name in names:
            metrics[name].update(values[name].detach(), weight=weight)
        return {name: values[name].detach() for name in losses if name in names}

    def _backward(self, loss: Tensor) -> None:
        """Run a backward pass without DDP's all-reduce, which waits for both networks."""
        strategy = self.trainer.strategy
        no_sync: AbstractContextManager[None] = nullcontext()
        if isinstance(strategy, ParallelStrategy):
            no_sync = strategy.block_backward_sync()
        with no_sync:
            self.manual_backward(loss / self.accumulate_grad_batches)

    def _step(
        self,
        optimizer: Any,
        network: nn.Module,
    ) -> None:
        """Step an optimizer with gradients averaged over ranks, and then its scheduler."""
        if self.trainer.world_size > 1:
            gradients = []
            for parameter in network.parameters():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
            vector = parameters_to_vector(gradients)
            mean = self.trainer.strategy.reduce(vector, reduce_op="mean")
            vector_to_parameters(cast(Tensor, mean), gradients)
        optimizer.step()
        optimizer.zero_grad()
        index = 0 if network is self.pair.generator else 1
        self.lr_schedulers()[index].step()  # type: ignore[index]


@contextmanager
def _no_parameter_grad(network: nn.Module) -> Iterator[None]:
    """Propagate gradients through a network without computing those of its parameters."""
    trainable = []
    for parameter in network.parameters():
        if parameter.requires_grad:
            trainable.append(parameter)
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _ema_with_warmup(decay: float) -> Any:
    """Return EMA with decay min(decay, (1 + t) / (10 + t)), to forget initial weights quickly."""

    def update(
        averaged: list[Tensor],
        current: list[Tensor],
        count: Tensor,
    ) -> None:
        warmup_decay = (1 + int(count)) / (10 + int(count))
        get_ema_multi_avg_fn(min(decay, warmup_decay))(averaged, current, count)

    return update
