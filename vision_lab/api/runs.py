"""Runs in Python: train one, load one, predict with it, and look at several."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vision_lab import build
from vision_lab.api import commands
from vision_lab.api.images import collect_images
from vision_lab.api.state import preserve_state
from vision_lab.config.resolution import Config
from vision_lab.config.validation import check_config
from vision_lab.core.arguments import ArgumentError
from vision_lab.core.documents import read_json
from vision_lab.core.errors import ConfigurationError, DataError
from vision_lab.core.files import format_path
from vision_lab.core.spec import DataSpec
from vision_lab.modes.load import load_trained_task
from vision_lab.run_folders.folder import Run
from vision_lab.tasks.base import Task
from vision_lab.tasks.reports.predictions import Prediction

MODEL_GROUPS = ("task", "model", "head", "loss", "data")
"""Groups that loading a run builds."""


class TrainedRun:
    """A run in a folder, with its results and its network.

    Nothing is loaded before it is needed, so that many runs can be listed quickly.

    Args:
        folder: the run folder.
        overrides: words of the command line that change its config, such as ``"trust=[my_lab]"``.

    Raises:
        ConfigurationError: if the folder does not contain a run.
    """

    def __init__(self, folder: str | os.PathLike[str], *overrides: str) -> None:
        self._run = Run.open(os.fspath(folder))
        self._overrides = overrides

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._run}, {self.state or 'not started'}>"

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._run.folder

    @property
    def state(self) -> str | None:
        """pending, running, finished or failed; None if it has not been started."""
        return self._run.state

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the test, by names like ``test/accuracy``.

        Raises:
            ConfigurationError: if the run is not finished.
        """
        return dict(self._result["metrics"])

    @property
    def score(self) -> float:
        """The monitored metric of the best checkpoint."""
        return float(next(iter(self._result["monitored"].values())))

    @property
    def config(self) -> dict[str, Any]:
        """The config as plain values."""
        return self._run.resolved

    @property
    def choices(self) -> dict[str, str | None]:
        """The option of each group, such as ``{"model": "resnet18"}``."""
        return self._run.choices

    @property
    def spec(self) -> DataSpec:
        """The images and classes that the network was trained on."""
        return DataSpec.from_config(self._run.spec)

    @property
    def history(self) -> list[dict[str, float]]:
        """The metrics of each epoch, as rows with the same columns; NaN where there is no value."""
        rows = self._run.read_rows("metrics.csv")
        return [{name: float(value or "nan") for name, value in row.items()} for row in rows]

    @property
    def network(self) -> nn.Module:
        """The trained network in evaluation mode, which maps normalized images to its outputs."""
        return self.task.network

    @cached_property
    def task(self) -> Task:
        """The trained task, which normalizes images and decodes outputs."""
        with preserve_state():
            task = load_trained_task(self._config, self._run)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return task.to(device).eval()

    def predict(
        self,
        images: Any,
        *,
        tta: Literal["flip"] | None = None,
        tiles: bool = False,
        tile_overlap: float = 0.25,
        batch_size: int | None = None,
    ) -> Any:
        """Predict images.

        Args:
            images: a path, a PIL image, an array (H, W) or (H, W, C) or a tensor (C, H, W); or many
                of them: a folder, a glob, a sequence, an array (N, H, W, C) or tensor (N, C, H, W).
            tta: ``flip`` to average the predictions of each image and its mirror image.
            tiles: whether to predict images at their original size, tile by tile.
            tile_overlap: overlap of adjacent tiles, as a fraction of their side.
            batch_size: number of images at a time; None for that of the training.

        Returns:
            A ``ClassPrediction``, ``MaskPrediction`` or ``BoxPrediction`` if a single image is
            given, else a list of them.

        Raises:
            DataError: naming an image that cannot be read.
            ArgumentError: if the task does not support an argument.
        """
        if self.task.generates_images:
            raise ConfigurationError("this run generates images: call sample()")
        dataset, is_single = collect_images(images)
        with preserve_state():
            self._configure_task(tta=tta, tile_overlap=tile_overlap if tiles else None)
            results = list(self._predict(dataset, keep_size=tiles, batch_size=batch_size))
        return results[0] if is_single else results

    def sample(self, count: int, *, labels: Sequence[int] | None = None) -> Tensor:
        """Generate the first images of the seed, with a run of ``task=generate``.

        Args:
            count: number of images.
            labels: label of each image for conditional generators; None for all classes in turn.

        Returns:
            (count, C, H, W) uint8.

        Raises:
            ConfigurationError: if the run generates no images.
        """
        task: Any = self.task
        if not task.generates_images:
            raise ConfigurationError("this run predicts images: call predict()")
        with preserve_state():
            images: Tensor = task.generate(task.sample_latents(range(count), labels=labels))
        return images.cpu()

    def evaluate(
        self,
        split: Literal["train", "val", "test"] = "test",
        *overrides: str,
    ) -> dict[str, float]:
        """Evaluate the run on a split of its data, or of other data with the same classes.

        Args:
            split: the split.
            overrides: further words of the command line, such as ``"data.root=other"``.

        Returns:
            The metrics, by names like ``test/accuracy``.
        """
        words = (f"mode.split={split}", *self._overrides, *overrides)
        folder = commands.run(["mode=evaluate", f"run={self.folder}", *words])
        result: Any = read_json(folder / f"{split}.json")
        return dict(result["metrics"])

    @property
    def _result(self) -> dict[str, Any]:
        result = self._run.result
        if result is None:
            state = self.state or "not started"
            raise ConfigurationError(f"{self._run} has no result: the run is {state}")
        return result

    @cached_property
    def _config(self) -> Config:
        words = ["mode=predict", f"run={self.folder}", *self._overrides]
        with preserve_state():
            config, _ = commands.compose_words(words)
        config = build.drop_datasets(config).updated({"features": None})
        check_config(config, MODEL_GROUPS)
        return config

    def _configure_task(self, *, tta: str | None, tile_overlap: float | None) -> None:
        if tta not in ("flip", None):
            raise ArgumentError("tta", tta, "flip or null")
        task: Any = self.task
        if tta:
            task.enable_flip_tta()
        else:
            task.flip_tta = False
        if tile_overlap is not None:
            task.enable_tiling(tile_overlap)
        else:
            task.tile_overlap = None

    def _predict(
        self,
        dataset: Any,
        *,
        keep_size: bool,
        batch_size: int | None,
    ) -> Iterator[Prediction]:
        data = build.prediction_data(self._config, self.task.spec, dataset, keep_size=keep_size)
        data.num_workers = 0
        if batch_size and not keep_size:  # images of different sizes make no batch
            data.eval_batch_size = batch_size
        for index, batch in enumerate(data.predict_dataloader()):
            if batch.unreadable:
                file = batch.unreadable[0]
                raise DataError(f"{file.path} cannot be read: {file.reason}")
            batch = batch.to(self.task.device)
            with torch.inference_mode():
                output = self.task.predict_step(batch, index)
            yield from self.task.report.to_results(batch.to(torch.device("cpu")), _to_cpu(output))


class Runs(list[TrainedRun]):
    """Several runs; ``rows`` is a table of them."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each run: its folder, state, score, seconds, and the choices that differ."""
        choices = [run.choices for run in self]
        differing = []
        for group in dict.fromkeys(group for chosen in choices for group in chosen):
            if len({chosen.get(group) for chosen in choices}) > 1:
                differing.append(group)
        rows = []
        for run, chosen in zip(self, choices, strict=True):
            result = run._run.result or {}
            row = {"run": format_path(run.folder), "state": run.state}
            row |= {group: chosen.get(group) for group in differing}
            row |= dict(result.get("monitored", {}))
            rows.append(row | {"seconds": result.get("seconds")})
        return rows


def load(folder: str | os.PathLike[str], *overrides: str) -> TrainedRun:
    """Load a run.

    Args:
        folder: the run folder, such as ``"outputs/flowers"``.
        overrides: words of the command line that change its config, such as ``"trust=[my_lab]"``.

    Returns:
        The run.

    Raises:
        ConfigurationError: if the folder does not contain a run.
    """
    return TrainedRun(folder, *overrides)


def train(*overrides: str) -> TrainedRun:
    """Train a run, or complete an interrupted one of the same name.

    Args:
        overrides: words of the command line, such as ``"model=resnet18"`` and ``"name=flowers"``.

    Returns:
        The finished run.

    Raises:
        ConfigurationError: if the config is invalid, or needs several processes.
        DataError: if the data cannot be read.
        KeyboardInterrupt: if it is interrupted; the same call resumes it if it has a name.
    """
    words = commands.single_device(overrides)
    return TrainedRun(commands.run(words, check=commands.check_single_process))


def runs(pattern: str | os.PathLike[str]) -> Runs:
    """Find runs.

    Args:
        pattern: a glob of run folders, such as ``"outputs/*"`` (``**`` matches any folders).

    Returns:
        The runs, sorted by folder; those without a config are left out.
    """
    folders = sorted(glob.glob(os.fspath(pattern), recursive=True))  # noqa: PTH207 - any root
    found = Runs()
    for folder in folders:
        if Path(folder, "config.yaml").is_file():
            found.append(TrainedRun(folder))
    return found


def _to_cpu(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.cpu()
    if isinstance(output, list):
        return [_to_cpu(item) for item in output]
    if is_dataclass(output) and not isinstance(output, type):
        return replace(output, **{name: _to_cpu(value) for name, value in vars(output).items()})
    return output
