"""Images and settings for loggers other than TensorBoard's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loggers import Logger

from tests.builders import FAST_WITH_IMAGES, Outcome

Command = Callable[..., Outcome]


def append(line: str) -> None:
    with Path("images.txt").open("a") as file:
        file.write(f"{line}\n")


class Experiment:
    """Records what MLflow's client would be sent."""

    def log_image(self, run_id: str, image: Any, artifact_file: str) -> None:
        append(f"{run_id} {artifact_file} {image.size}")


class Recorder(Logger):
    """A logger with the interface of wandb's (``log_image``) or of MLflow's (``experiment``)."""

    run_id = "run-7"
    name = version = "x"

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "wandb":
            self.log_image = self._log_image

    def _log_image(self, key: str, images: list[Any], step: int) -> None:
        append(f"{key} {step} {images[0].size}")

    @property
    def experiment(self) -> Any:
        return Experiment() if self.kind == "mlflow" else None

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None: ...

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        Path("settings.txt").write_text(repr(params))


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("wandb", "val/predictions 3 ("),
        ("mlflow", "run-7 val/predictions/00000003.png ("),
        ("plain", None),
    ],
)
def test_loggers_receive_images_and_settings(command: Command, kind: str, line: str | None):
    words = (
        "+logger.own._target_=tests.loggers.test_images.Recorder",
        f"+logger.own.kind={kind}",
        "model.network.depth=8",
        "callbacks.progress_bar=null",
    )
    outcome = command(*FAST_WITH_IMAGES, *words, "name=x")
    assert outcome.code == 0, outcome.err
    assert "'model': 'resnet20'" in Path("settings.txt").read_text()
    if line is None:
        assert not Path("images.txt").exists()
        return
    lines = Path("images.txt").read_text().splitlines()
    assert lines[0].startswith(line)
    assert len(lines) == 8
