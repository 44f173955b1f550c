"""TensorBoard logger whose curves stay intact when a run is killed and resumed."""

from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from vision_lab.core.files import delete_file, write_file


class ResumableTensorBoardLogger(TensorBoardLogger):
    """Lightning's logger, with event files directly in the run folder.

    It omits the curve of the epoch number and the single points of test metrics, which would be the
    first on TensorBoard's first page, and an empty ``hparams.yaml``: ``HparamsLogger`` writes the
    HPARAMS page, and test metrics as text.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(
            save_dir=folder,
            name="",
            version="",
            default_hp_metric=False,
        )
        self.folder = Path(folder)
        self.earlier_files = self._event_files()
        """Event files of earlier commands."""

    @rank_zero_only
    def log_metrics(
        self,
        metrics: Mapping[str, float],
        step: int | None = None,
    ) -> None:
        shown = {}
        for name, value in metrics.items():
            if name != "epoch" and not name.startswith("test/"):
                shown[name] = value
        super().log_metrics(shown, step)

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()

    def file_sizes(self) -> dict[str, int]:
        """Flush the event files and return their sizes in bytes by name."""
        self.save()
        return {path.name: path.stat().st_size for path in self._event_files()}

    def truncate_to(
        self,
        sizes: Mapping[str, int],
        *,
        step: int,
    ) -> None:
        """Remove what was written after a checkpoint, because it will be written again.

        Args:
            sizes: the ``file_sizes`` at the checkpoint.
            step: step of the checkpoint; a TensorBoard that is open now drops all later points.
        """
        for path in self.earlier_files:
            if path.name in sizes:
                # A new file, not a truncated one, so that hard links to it keep their content.
                write_file(self.folder, path.name, path.read_bytes()[: max(sizes[path.name], 0)])
            else:
                delete_file(self.folder, path.name)
        if sizes:
            start = Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))
            self.experiment._get_file_writer().add_event(start)

    def _event_files(self) -> list[Path]:
        return sorted(self.folder.glob("events.out.tfevents.*"))
