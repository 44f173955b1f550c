"""The progress bar of training and evaluation."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """Lightning's Rich progress bar, refreshed every fourth batch.

    Refreshing it after every batch takes noticeable time on a small machine.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=4)

    def _get_train_description(self, current_epoch: int) -> str:
        """Count epochs from 1, as all other output does."""
        last = self.trainer.max_epochs
        total = f"/{last}" if last is not None and last > 0 else ""
        description = f"Epoch {current_epoch + 1}{total}"
        return description.ljust(len(self.validation_description))  # the bars below each other

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the metrics to show, without the logger's version, which run folders lack."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if "images/s" in metrics:
            metrics["images/s"] = f"{metrics['images/s']:.0f}"
        return metrics
