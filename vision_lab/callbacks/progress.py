"""What a person sees in the terminal while a run trains: a bar with its ETA, and one line for each epoch."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, RichProgressBar
from rich import get_console


class Progress(RichProgressBar):
    """Lightning's bar (elapsed and remaining time, batches/s, loss, images/s), drawn four times a second.

    The default of a hundred times would take a noticeable share of a small machine.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=4)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, int | str | float]:
        """Without the logger's version number, which our folders do not have."""
        metrics: dict[str, int | str | float] = {}
        for name, value in super().get_metrics(trainer, pl_module).items():
            if name != "v_num":
                metrics[name] = f"{value:.0f}" if name == "images/s" else value
        return metrics


class EpochLine(Checkpoint):
    """Prints an epoch's training and validation metrics; a ``Checkpoint`` so that it is called once they are known."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        if trainer.is_global_zero:
            values = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith(("train/", "val/"))}
            shown = "  ".join(f"{name} {value:.4f}" for name, value in sorted(values.items()))
            get_console().print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}", highlight=False)
