"""TensorBoard without what Lightning adds for itself, and with curves that a killed run does not tear."""

from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from vision_lab.core.files import delete_file, write_file


class ResumableTensorBoardLogger(TensorBoardLogger):
    """Lightning's logger, its event files right in the run's folder.

    Left out are the curve of the epoch's number, which would be the first thing to see on TensorBoard's first page, and
    an empty ``hparams.yaml``: the run's card writes the page of that name.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(save_dir=folder, name="", version="", default_hp_metric=False)
        self.folder = Path(folder)
        self.earlier = self._files()
        """What other processes have written before this one."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(
            {name: value for name, value in metrics.items() if name != "epoch"}, step
        )

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()

    def file_sizes(self) -> dict[str, int]:
        """Event file: bytes written so far."""
        self.save()
        return {path.name: path.stat().st_size for path in self._files()}

    def truncate_to(self, sizes: Mapping[str, int], *, step: int) -> None:
        """Take back what was written after a checkpoint, since it will be written again.

        Args:
            sizes: what ``sizes`` said at the checkpoint.
            step: the checkpoint's; a TensorBoard that is open now forgets all later ones.
        """
        for path in self.earlier:
            if path.name in sizes:
                # Written anew rather than cut: another name of the file elsewhere keeps what it has.
                write_file(self.folder, path.name, path.read_bytes()[: max(sizes[path.name], 0)])
            else:
                delete_file(self.folder, path.name)
        if sizes:
            start = Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))
            self.experiment._get_file_writer().add_event(start)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("events.out.tfevents.*"))
