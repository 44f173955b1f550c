"""Adversarial training of a generator and a discriminator."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, cast

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics import MeanMetric

from vision_lab.core.arguments import ArgumentError, Count, NonNegative, Range
from vision_lab.core.batch import Batch
from vision_lab.core.protocols import GanNetworks
from vision_lab.losses.gan import AdversarialLoss, r1_penalty
from vision_lab.tasks.manual import ManualTask
from vision_lab.training.ema import make_ema
from vision_lab.training.gradients import freeze_parameters
from vision_lab.training.schedulers import count_steps, follows_metric

log = logging.getLogger(__name__)

NETWORKS = ("generator", "discriminator")
"""The networks, in the order of their optimizers."""

GENERATOR, DISCRIMINATOR = range(2)
"""Indices of their optimizers."""


class GanTask(ManualTask):
    """A generator and a discriminator, each with its own optimizer.

    Each optimizer step accumulates gradients over ``accumulate_grad_batches`` batches on every
    rank: first the discriminator's, then, every ``n_critic`` steps, the generator's on as many
    newly generated images. Logged are means over an epoch: losses, the penalty, scores of real and
    generated images and, if the loss separates them at 0, the discriminator's accuracy on each.

    Args:
        loss: losses of both networks.
        r1_weight: weight of the R1 penalty, for any loss (Mescheder 2018); 0 to disable.
        n_critic: number of discriminator steps per generator step.
        diffaugment: differentiable augmentations of the discriminator's inputs (Zhao 2020), each
            of which maps images (N, C, H, W) in [-1, 1] to such images.
        generator_optimizer: settings of the generator's optimizer that override the config's.
        discriminator_optimizer: settings of the discriminator's optimizer, likewise.
        ema_decay: decay of the exponential moving average of the generator's weights, with which
            samples are generated; 0 to disable.
        arguments: arguments of ``ManualTask``; ``network`` is a ``GanNetworks``.

    Raises:
        ArgumentError: if the schedule follows a metric, or a setting is invalid.
    """

    can_compile = False  # its networks are called one by one

    def __init__(
        self,
        *,
        loss: AdversarialLoss,
        r1_weight: NonNegative,
        n_critic: Count,
        generator_optimizer: Mapping[str, Any],
        discriminator_optimizer: Mapping[str, Any],
        ema_decay: Annotated[float, Range(ge=0, lt=1)],
        diffaugment: Sequence[Callable[[Tensor], Tensor]] = (),
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        if follows_metric(self.schedule):
            needed = "a schedule that follows progress: two networks have no common metric"
            raise ArgumentError("schedule", "plateau", needed)
        self.loss = loss
        self.r1_weight = r1_weight
        self.n_critic = n_critic
        self.diffaugment = diffaugment
        self.optimizer_overrides = (generator_optimizer or {}, discriminator_optimizer or {})
        self.ema_generator = make_ema(self.pair.generator, ema_decay) if ema_decay else None
        names = ["generator_loss", "discriminator_loss", "real_score", "fake_score"]
        if loss.has_zero_threshold:
            names += ["real_accuracy", "fake_accuracy"]
        if self.has_penalty:
            names += ["penalty"]
        self.split_metrics["on_train"] = nn.ModuleDict({name: MeanMetric() for name in names})
        self.accumulated_targets: list[Tensor] = []
        """Targets of each readable batch since the last optimizer step."""

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
    def latent_dim(self) -> int:
        """Number of standard normal latent variables per image."""
        return self.pair.latent_dim

    @property
    def conditional(self) -> bool:
        """Whether both networks are conditioned on class labels."""
        return self.pair.conditional

    @property
    def has_penalty(self) -> bool:
        """Whether the discriminator's gradients are penalized."""
        return self.loss.penalizes_gradients or self.r1_weight > 0

    @property
    def uses_class_labels(self) -> bool:
        return self.conditional

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
        count_steps(self.trainer)  # creates the data loader, and raises an error if there is no end
        discriminator_steps = self.steps_per_epoch() * int(self.trainer.max_epochs or 0)
        all_steps = (discriminator_steps // self.n_critic, discriminator_steps)
        settings = []
        rows = zip(NETWORKS, self.optimizer_overrides, all_steps, strict=True)
        for name, overrides, steps in rows:
            parameters = list(getattr(self.pair, name).named_parameters())
            try:
                optimizer = self.optimizer(parameters, **overrides)
            except (TypeError, ValueError) as error:
                needed = f"settings of the optimizer: {error}"
                raise ArgumentError(f"{name}_optimizer", dict(overrides), needed) from error
            lr_scheduler = self.make_lr_scheduler(optimizer, steps=max(steps, 1))
            settings.append({"optimizer": optimizer, "lr_scheduler": lr_scheduler})
        return tuple(settings)  # type: ignore[return-value]

    def on_fit_start(self) -> None:
        """Warn about penalties of a discriminator with batch norm."""
        modules = self.pair.discriminator.modules()
        has_batch_norm = any(isinstance(module, _BatchNorm) for module in modules)
        if self.has_penalty and has_batch_norm and self.global_rank == 0:
            log.warning(
                "the penalty is for the gradient of each image, but batch norm makes it depend on "
                "the whole batch (Gulrajani 2017, section 4): choose a discriminator with layer "
                "norm, such as discriminator_norm=layer of dcgan"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Accumulate gradients, and step the optimizers when a window of batches is complete."""
        window, is_complete = self.start_batch(batch_idx)
        if batch.samples:  # at least one of its files is readable
            self.last_losses |= self._discriminator_backward(batch)
            self.accumulated_targets.append(batch.targets)
        if not is_complete:
            return self.last_losses
        targets, self.accumulated_targets = self.accumulated_targets, []
        if not self.trainer.strategy.reduce_boolean_decision(bool(targets), all=False):
            return self.last_losses  # no rank has any data
        self.step(DISCRIMINATOR, self.pair.discriminator)
        if self._is_generator_step(window):
            with freeze_parameters(self.pair.discriminator):
                for batch_targets in targets:
                    self.last_losses |= self._generator_backward(batch_targets)
            self.step(GENERATOR, self.pair.generator)
            if self.ema_generator is not None:
                self.ema_generator.update_parameters(self.pair.generator)
        return self.last_losses

    def learning_rates(self) -> dict[str, float]:
        optimizers = zip(NETWORKS, self.trainer.optimizers, strict=True)
        return {f"{name}_lr": optimizer.param_groups[0]["lr"] for name, optimizer in optimizers}

    def _is_generator_step(self, window: int) -> bool:
        """Return whether a window of batches ends with a generator step.

        This is a function of the position in training, so that no counter has to be stored.
        """
        windows_before = self.current_epoch * self.steps_per_epoch()
        return (windows_before + window + 1) % self.n_critic == 0

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
        penalty = self.loss.penalty(score, real, fake)
        if self.r1_weight:
            penalty = penalty + self.r1_weight * r1_penalty(score, real)
        self.accumulate(loss + penalty)
        values = {
            "discriminator_loss": loss,
            "penalty": penalty,
            "real_score": real_scores.mean(),
            "fake_score": fake_scores.mean(),
            "real_accuracy": (real_scores > 0).float().mean(),
            "fake_accuracy": (fake_scores < 0).float().mean(),
        }
        losses = ("discriminator_loss", "penalty")
        return self.update_train_metrics(values, weight=len(pixels), losses=losses)

    def _generator_backward(self, targets: Tensor) -> dict[str, Tensor]:
        """Accumulate gradients of the generator, on as many images with labels from a batch."""
        count = len(targets)
        labels = None
        if self.pair.conditional:
            labels = targets[torch.randint(count, (count,), device=self.device)]
        fake = self._augment(self.pair.generator(self._draw_latents(count), labels))
        loss = self.loss.generator(self.pair.discriminator(fake, labels).float())
        self.accumulate(loss)
        values = {"generator_loss": loss}
        return self.update_train_metrics(values, weight=count, losses=("generator_loss",))

    def _draw_latents(self, count: int) -> Tensor:
        """Draw latents (count, latent_dim) from the random generator seeded for this step."""
        return torch.randn(count, self.pair.latent_dim, device=self.device)

    def _augment(self, images: Tensor) -> Tensor:
        for augmentation in self.diffaugment:
            images = augmentation(images)
        return images
