"""Two ways in which a pair of networks stops to learn, said in words while it trains."""

from __future__ import annotations

from typing import Any, Literal

import pytorch_lightning as pl
from rich import get_console
from rich.text import Text

from vision_lab.callbacks.epoch_metrics import EpochMetrics
from vision_lab.core.arguments import Count, Fraction, NonNegative
from vision_lab.core.errors import DataError


class GanMonitor(EpochMetrics):
    """Watches for collapse (all samples are alike) and saturation (the discriminator is never wrong).

    A loss that is no number is another callback's (``finite``).

    Args:
        action: ``warn``, each time it has lasted so long, or ``stop`` with an error.
        diversity: samples are alike where they are less apart than this part of what real pictures are.
        accuracy: a discriminator is never wrong where it knows more than this part of real and of made pictures.
        patience: epochs, one after another, that it may last.
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
        """Epochs that each has lasted by now."""

    def on_epoch_metrics(self, trainer: pl.Trainer, metrics: dict[str, float]) -> None:
        known = min(
            metrics.get("train/real_accuracy", 0.0), metrics.get("train/fake_accuracy", 0.0)
        )
        self._count(
            trainer, "saturation", known > self.max_discriminator_accuracy, _saturated(known)
        )
        if "val/diversity" in metrics:
            apart = metrics["val/diversity"]
            self._count(trainer, "collapse", apart < self.min_diversity, _collapsed(apart))

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"lasted": self.epochs_failing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.epochs_failing = state_dict["lasted"]

    def _count(self, trainer: pl.Trainer, what: str, there: bool, text: str) -> None:
        self.epochs_failing[what] = self.epochs_failing[what] + 1 if there else 0
        if not self.epochs_failing[what] or self.epochs_failing[what] % self.patience:
            return
        said = f"epoch {trainer.current_epoch + 1}: {text}"
        if self.stop_on_failure:
            raise DataError(
                f"{said}\nTo go on all the same, type callbacks.gan_monitor.action=warn and another name="
            )
        if trainer.is_global_zero:
            get_console().print(
                Text.assemble(("warning:", "yellow"), f" {said}"), highlight=False, soft_wrap=True
            )


def _saturated(known: float) -> str:
    return (
        f"the discriminator knows {known:.1%} of real and made pictures, so that the generator learns little from it: "
        "type model.discriminator_channels=<less>, task.discriminator_optimizer.lr=<less>, task.real_label_value=0.9, or "
        "task.diffaugment=[color,translation,cutout]"
    )


def _collapsed(apart: float) -> str:
    return (
        f"samples are much alike, apart by {apart:.2f} of what real pictures are: the generator has collapsed, or has "
        "hardly begun. If it lasts, type task.loss=hinge model.spectral_norm=true, or task.r1_weight=1 "
        "model.discriminator_norm=layer, or a smaller optimizer.lr"
    )
