"""Termination of a training whose loss or weights are no longer finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor

from vision_lab.callbacks.checkpointing import ResumeCheckpoint
from vision_lab.callbacks.step_logger import is_log_step, logged_step
from vision_lab.core.batch import Batch, Sample
from vision_lab.core.errors import DataError


class _Step(NamedTuple):
    number: int
    losses: dict[str, Tensor]
    samples: Sequence[Sample]


class TerminateOnNaN(pl.Callback):
    """Stops training at a loss that is not finite, and never saves weights that are not finite.

    Reading a loss synchronizes with the device. Losses are therefore read after every step only
    with a single CPU process; otherwise every ``trainer.log_every_n_steps`` steps and before a
    checkpoint. The error names the first invalid step in any case. With a gradient scaler
    (float16), which skips such steps, only the weights are checked.
    """

    def __init__(self) -> None:
        self.pending_steps: list[_Step] = []

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        if outputs:
            losses = {}
            for name, loss in outputs.items():
                if isinstance(loss, Tensor):
                    losses[name] = loss.detach()
            self.pending_steps.append(_Step(logged_step(trainer), losses, batch.samples))
        # Elsewhere a check synchronizes the device, which the logging of losses does anyway.
        is_single_cpu = trainer.world_size == 1 and pl_module.device.type == "cpu"
        if is_single_cpu or is_log_step(trainer, batch_idx):
            self._check_losses(trainer)

    def on_train_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        self._check_losses(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._check_losses(trainer)
        invalid = []
        for name, parameter in pl_module.named_parameters():
            if parameter.requires_grad and not bool(parameter.isfinite().all()):
                invalid.append(name)
        if invalid:  # the weights are the same on every rank
            names = ", ".join(invalid[:5])
            _stop(trainer, f"after step {logged_step(trainer)} the weights are not finite: {names}")

    def _check_losses(self, trainer: pl.Trainer) -> None:
        steps, self.pending_steps = self.pending_steps, []
        plugin = trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is not None:
            return
        values = []
        for step in steps:
            for loss in step.losses.values():
                values.append(loss.float().reshape(()))
        is_finite = not values or bool(torch.stack(values).isfinite().all())
        if trainer.strategy.reduce_boolean_decision(is_finite):
            return
        message = "" if is_finite else _describe_first_invalid(steps)
        if trainer.world_size > 1:
            messages: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(messages, message)
            message = next(text for text in messages if text)
        _stop(trainer, message)


def _describe_first_invalid(steps: Sequence[_Step]) -> str:
    for step in steps:
        losses = {name: loss.item() for name, loss in step.losses.items()}
        invalid = []
        for name, loss in step.losses.items():
            if not bool(loss.isfinite()):
                invalid.append(name)
        if invalid:
            values = ", ".join(f"{name} {losses[name]}" for name in invalid)
            indices = ", ".join(str(sample.index) for sample in step.samples)
            lines = [f"at step {step.number} the loss is not finite: {values}"]
            lines.append(f"Samples of the batch: {indices}")
            for sample in step.samples:
                if sample.path:
                    lines.append(f"  {sample.path}")
            return "\n".join(lines)
    raise AssertionError("all losses are finite")


def _stop(trainer: pl.Trainer, message: str) -> NoReturn:
    checkpoint = "No checkpoint was saved before."
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ResumeCheckpoint) and callback.path:
            checkpoint = f"The last valid checkpoint is {callback.path} of step {callback.step}."
    raise DataError(
        f"{message}\n{checkpoint}\nRepeating the command would fail at the same step: use another "
        "name= with a smaller learning rate, or with gradient_clip_val=1."
    )
