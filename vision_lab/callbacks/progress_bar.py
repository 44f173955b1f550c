"""The progress bar of training and evaluation."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """Lightning's Rich progress bar, refreshed every fourth batch.

    Refreshing it after every batch takes noticeable time on a small machine.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=4)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the metrics to show, without the logger's version, which run folders lack."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if "images/s" in metrics:
            metrics["images/s"] = f"{metrics['images/s']:.0f}"
        return metrics
