"""What a person sees in the terminal while a run trains: a bar with its ETA, and one line for each epoch."""

from collections.abc import Sequence

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, RichProgressBar
from rich import get_console


class Progress(RichProgressBar):
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


class EpochLine(Checkpoint):
    """Prints an epoch's metrics; a ``Checkpoint`` so that it is called once those of training are known.

    Args:
        names: of the metrics to print, without their split.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(f"/{name}" for name in names)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            values = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith(("train/", "val/"))}
            shown = "  ".join(f"{name} {values[name]:.3f}" for name in values if name.endswith(self.names))
            line = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}"
            get_console().print(line, highlight=False, soft_wrap=True)
