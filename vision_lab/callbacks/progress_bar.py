"""What a person sees in the terminal while a run trains: a bar with its ETA."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """Lightning's bar (elapsed and remaining time, batches/s, loss, images/s), drawn four times a second.

    The default of a hundred times would take a noticeable share of a small machine.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=4)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Without the logger's version number, which our folders do not have."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if "images/s" in metrics:
            metrics["images/s"] = f"{metrics['images/s']:.0f}"
        return metrics
