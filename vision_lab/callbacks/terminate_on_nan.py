"""A training that has gone wrong is stopped before it is saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

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
    """Stops at a loss that is not finite, and keeps weights that are not finite out of checkpoints.

    To look at a loss is to wait for the device: so it is done at each step on one CPU, elsewhere every
    ``trainer.log_every_n_steps`` and before anything is saved; what is named is the first bad step all the same.
    Where a loss is scaled (float16), single bad steps are skipped by the scaler, and only the weights count.
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
            losses = {
                name: value.detach() for name, value in outputs.items() if isinstance(value, Tensor)
            }
            self.pending_steps.append(_Step(logged_step(trainer), losses, batch.samples))
        alone = trainer.world_size == 1 and pl_module.device.type == "cpu"
        if alone or is_log_step(trainer, batch_idx):
            self._check_pending(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check_pending(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._check_pending(trainer)
        bad = [
            name
            for name, p in pl_module.named_parameters()
            if p.requires_grad and not bool(p.isfinite().all())
        ]
        if bad:  # the same on every process
            _stop(
                trainer,
                f"after step {logged_step(trainer)} the weights are not finite: {', '.join(bad[:5])}",
            )

    def _check_pending(self, trainer: pl.Trainer) -> None:
        plugin = trainer.precision_plugin
        unseen, self.pending_steps = self.pending_steps, []
        if isinstance(plugin, MixedPrecision) and plugin.scaler is not None:
            return
        values = [value.float().reshape(()) for step in unseen for value in step.losses.values()]
        fine = not values or bool(torch.stack(values).isfinite().all())
        if trainer.strategy.reduce_boolean_decision(fine):
            return
        found = "" if fine else _described(unseen)
        if trainer.world_size > 1:
            every: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(every, found)
            found = next(text for text in every if text)
        _stop(trainer, found)


def _described(steps: Sequence[_Step]) -> str:
    for step in steps:
        bad = {
            name: value.item() for name, value in step.losses.items() if not bool(value.isfinite())
        }
        if bad:
            losses = ", ".join(f"{name} {value}" for name, value in bad.items())
            samples = ", ".join(str(sample.index) for sample in step.samples)
            files = [f"  {sample.path}" for sample in step.samples if sample.path]
            lines = [
                f"at step {step.number} the loss is not finite: {losses}",
                f"The batch's samples: {samples}",
                *files,
            ]
            return "\n".join(lines)
    raise AssertionError


def _stop(trainer: pl.Trainer, what: str) -> None:
    kept = next((c for c in trainer.checkpoint_callbacks if isinstance(c, ResumeCheckpoint)), None)
    last = (
        f"The last good checkpoint is {kept.path} of step {kept.step}."
        if kept and kept.path
        else "None was saved."
    )
    raise DataError(
        f"{what}\n{last}\nThe same command would come to the same step: type another name= and a smaller optimizer.lr, or "
        "trainer.gradient_clip_val=1."
    )
