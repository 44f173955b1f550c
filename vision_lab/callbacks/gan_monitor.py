"""Detection of two failures of GAN training: mode collapse and a saturated discriminator."""

from __future__ import annotations

from typing import Any, Literal

import pytorch_lightning as pl

from vision_lab.callbacks.epoch_metrics import EpochMetrics
from vision_lab.core.arguments import Count, Fraction, NonNegative
from vision_lab.core.console import print_warning
from vision_lab.core.errors import DataError


class GanMonitor(EpochMetrics):
    """Reports mode collapse (all samples look alike) and a discriminator that is never wrong.

    A loss that is not finite is reported by ``TerminateOnNaN``.

    Args:
        action: ``warn`` each time a failure has lasted for ``patience`` epochs, or ``stop`` with an
            error.
        min_diversity: collapse is reported below this fraction of the diversity of real images.
        max_discriminator_accuracy: saturation is reported if the discriminator's accuracy, on both
            real and generated images, is higher.
        patience: number of consecutive epochs that a failure may last.
    """

    def __init__(
        self,
        *,
        action: Literal["warn", "stop"],
        min_diversity: NonNegative,
        max_discriminator_accuracy: Fraction,
        patience: Count,
    ) -> None:
        super().__init__()
        self.stop_on_failure = action == "stop"
        self.min_diversity = min_diversity
        self.max_discriminator_accuracy = max_discriminator_accuracy
        self.patience = patience
        self.epochs_failing = {"collapse": 0, "saturation": 0}
        """Number of consecutive epochs with each failure."""

    def on_epoch_metrics(
        self,
        trainer: pl.Trainer,
        metrics: dict[str, float],
    ) -> None:
        accuracy = min(metrics.get(f"train/{kind}_accuracy", 0.0) for kind in ("real", "fake"))
        is_saturated = accuracy > self.max_discriminator_accuracy
        self._update(trainer, "saturation", is_saturated, _saturation_message(accuracy))
        if "val/diversity" in metrics:
            diversity = metrics["val/diversity"]
            is_collapsed = diversity < self.min_diversity
            self._update(trainer, "collapse", is_collapsed, _collapse_message(diversity))

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"epochs_failing": self.epochs_failing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.epochs_failing = state_dict["epochs_failing"]

    def _update(
        self,
        trainer: pl.Trainer,
        failure: str,
        is_failing: bool,
        message: str,
    ) -> None:
        if not is_failing:
            self.epochs_failing[failure] = 0
            return
        self.epochs_failing[failure] += 1
        if self.epochs_failing[failure] % self.patience:
            return
        message = f"epoch {trainer.current_epoch + 1}: {message}"
        if self.stop_on_failure:
            raise DataError(
                f"{message}\nTo continue anyway, type callbacks.gan_monitor.action=warn and "
                "another name="
            )
        if trainer.is_global_zero:
            print_warning(message)


def _saturation_message(accuracy: float) -> str:
    return (
        f"the discriminator recognizes {accuracy:.1%} of real and generated images, so the "
        "generator learns little: choose a smaller discriminator or a smaller learning rate of it, "
        "a loss with real_label=0.9, or differentiable augmentation"
    )


def _collapse_message(diversity: float) -> str:
    return (
        f"the samples look alike, with {diversity:.2f} of the diversity of real images: the "
        "generator has collapsed, or has hardly begun to learn. If it persists, choose a hinge "
        "loss with spectral norm, an R1 penalty with layer norm, or a smaller learning rate"
    )
