"""The folder of a run: its state, its config and its results. Does not import torch."""

from __future__ import annotations

import csv
import io
import os
import re
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml

from vision_lab.core.arguments import check_value, fits
from vision_lab.core.documents import DocumentError, read_json, read_text, read_yaml
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import expand_home, format_path, write_file, write_json
from vision_lab.core.spec import DataSpec
from vision_lab.core.text import summarize_names
from vision_lab.run_folders import environment
from vision_lab.run_folders.naming import REPLACED

State = Literal["pending", "running", "finished", "failed", "pruned"]

INTERRUPTED = "interrupted"
"""Error of a run that was ended by the user."""

MAX_CSV_BYTES = 100_000_000
"""Maximum size of a CSV file; a row of metrics has about 200 bytes."""

MAX_LISTED_RUNS = 20
"""Maximum number of runs listed in an error."""

FILE_KEYS: dict[str, dict[str, Any]] = {
    "result.json": {
        "metrics": dict[str, float],
        "per_class": dict[str, dict[str, float]],
        "monitored": dict[str, float],
        "measured_with": dict[str, Any] | None,
    },
    "environment.json": {"versions": dict[str, str]},
}
"""Keys that are read from each JSON file, and the types of their values."""


@dataclass(frozen=True)
class Run:
    """A run in a folder under ``outputs/``.

    Attributes:
        folder: the folder; it need not exist.
    """

    folder: Path

    def __str__(self) -> str:
        """Return the path as one would type it in the working directory."""
        return format_path(self.folder)

    @classmethod
    def open(
        cls,
        path: str,
        *,
        key: str = "run",
        prefix: str = "",
    ) -> Run:
        """Open the run in a folder.

        Args:
            path: the folder, as typed.
            key: the key of the command line, for errors.
            prefix: what was typed before the path, for errors.

        Raises:
            ConfigurationError: if the folder does not contain a run.
        """
        folder = expand_home(path)
        if not (folder / "config.yaml").is_file():
            raise ConfigurationError(f"{key}={prefix}{path}: {_describe_contents(folder, key)}")
        return cls(folder)

    @property
    def weights(self) -> Path:
        """Path of the best checkpoint's network, a plain state dict."""
        return self.folder / "model.pth"

    @property
    def status(self) -> dict[str, Any]:
        """Content of ``status.json``: state, time and details; empty if there is no such file."""
        return self._json("status.json") or {}

    @property
    def state(self) -> State | None:
        """The state of the run; None if it has not been started."""
        state = self.status.get("state")
        if state in get_args(State):
            return state
        return None

    @property
    def error(self) -> str:
        """The first line of the error of a failed run."""
        return str(self.status.get("error", "")).split("\n", 1)[0]

    @property
    def is_interrupted(self) -> bool:
        """Whether the run was ended by the user."""
        return self.state == "failed" and self.error == INTERRUPTED

    @property
    def is_initialized(self) -> bool:
        """Whether the config has been written; a command refused before leaves only a status."""
        return (self.folder / "config.yaml").is_file()

    @property
    def config(self) -> dict[str, Any]:
        """The composed config, unresolved."""
        return self._yaml("config.yaml")

    @property
    def resolved(self) -> dict[str, Any]:
        """The composed config, with interpolations resolved."""
        return self._yaml("config_resolved.yaml")

    @property
    def choices(self) -> dict[str, str | None]:
        """The choice of each group, from the command line or the defaults."""
        choices = self._yaml("overrides.yaml").get("choices")
        # The file may come from someone else, and choices become names of folders and references.
        if not isinstance(choices, dict) or not all(map(_is_choice, choices.values())):
            raise ConfigurationError(
                f"{self.folder / 'overrides.yaml'}: choices must be names of files in conf/"
            )
        return choices

    @property
    def overrides(self) -> list[str]:
        """The overrides of the command line, as they were typed."""
        found = self._yaml("overrides.yaml").get("overrides")
        if not fits(found, list[str]):
            raise self._damaged("overrides.yaml", "it requires a list of overrides")
        return list(found)  # type: ignore[arg-type]

    @property
    def result(self) -> dict[str, Any] | None:
        """Content of ``result.json``; None if the run is not finished.

        Raises:
            ConfigurationError: if the file is damaged.
        """
        found = self._json("result.json")
        if found is not None and not found["monitored"]:
            raise self._damaged("result.json", "monitored is empty")
        return found

    @property
    def data(self) -> dict[str, Any] | None:
        """The fingerprint of the data of each split; None if they have not been written."""
        found = self._json("data_fingerprint.json")
        if found is not None and not fits(found, dict[str, dict[str, Any]]):
            raise self._damaged("data_fingerprint.json", "it requires a mapping for each split")
        return found

    def read_rows(self, name: str, *, max_rows: int | None = None) -> list[dict[str, str]]:
        """Read a CSV file, such as ``metrics.csv``; no rows if there is no such file.

        Args:
            name: name of the file.
            max_rows: maximum number of rows, the first ones; None for all.

        Raises:
            ConfigurationError: if the file is not such a file.
        """
        file = self.folder / name
        if not file.is_file():
            return []
        try:
            text = read_text(file, max_bytes=MAX_CSV_BYTES)
        except DocumentError as error:
            raise self._damaged(name, str(error)) from error
        try:
            rows = list(islice(csv.DictReader(io.StringIO(text)), max_rows))
        except csv.Error as error:
            raise self._damaged(name, str(error)) from error
        return rows

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, machine and commit at the start of the run."""
        return self._json("environment.json") or {}

    @property
    def spec(self) -> dict[str, Any]:
        """The data spec of the network: classes, image size, channels and normalization.

        Raises:
            ConfigurationError: if the file is missing, damaged or invalid.
        """
        found = self._json("data_spec.json")
        if found is None:
            raise ConfigurationError(f"{self} is not a complete run: it has no data_spec.json")
        annotations = get_type_hints(DataSpec, include_extras=True)
        problems = []
        for key in annotations:
            if key not in found:
                problems.append(f"{key} is missing")
        for key in found:
            if key not in annotations:
                problems.append(f"there is no {key}")
        if not problems:
            checked = [
                check_value(key, found[key], annotation) for key, annotation in annotations.items()
            ]
            problems = []
            for problem in checked:
                if problem:
                    problems.append(problem)
        if problems:
            file = format_path(self.folder / "data_spec.json")
            raise ConfigurationError(f"{file} is invalid: {'; '.join(problems)}")
        return found

    def write_config(
        self,
        *,
        config: str,
        resolved: str,
        overrides: Sequence[str],
        choices: Mapping[str, Any],
        spec: Mapping[str, Any],
    ) -> None:
        """Write the config and the environment, before training starts.

        Args:
            config: the composed config, unresolved, as YAML.
            resolved: the same with interpolations resolved.
            overrides: the overrides of the command line.
            choices: the choice of each group.
            spec: the data spec of the network, to use ``model.pth`` without the dataset.
        """
        typed = {"overrides": list(overrides), "choices": dict(choices)}
        description, difference = environment.describe_environment()
        write_file(self.folder, "config_resolved.yaml", resolved)
        write_file(self.folder, "overrides.yaml", yaml.safe_dump(typed, sort_keys=False))
        write_json(self.folder, "data_spec.json", spec)
        write_json(self.folder, "environment.json", description)
        if difference:
            write_file(self.folder, "uncommitted.diff", difference)
        write_file(self.folder, "config.yaml", config)  # the last one, because of is_initialized

    def write_data_fingerprint(self, data: Mapping[str, Any]) -> None:
        """Write the fingerprint of the data of each split."""
        write_json(self.folder, "data_fingerprint.json", data)

    def mark_pending(self) -> None:
        """Set the state to pending: the folder is locked, and data is being prepared."""
        self._write_status("pending", **_process_info())

    def start(self) -> None:
        """Set the state to running."""
        self._write_status("running", **_process_info())

    def write_heartbeat(self) -> None:
        """Write the time, to show that the process is alive."""
        with _status_lock:
            status = self.status
            if status.get("state") in ("pending", "running"):
                write_json(self.folder, "status.json", status | {"heartbeat": _now()})

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json`` and set the state to finished."""
        write_json(self.folder, "result.json", result)
        self._write_status("finished")

    def fail(self, error: BaseException) -> None:
        """Set the state to failed, with the error."""
        text = str(error) or type(error).__name__
        if not isinstance(error, Exception):  # a KeyboardInterrupt or the like
            text = INTERRUPTED
        self._write_status("failed", error=text)

    def prune(self, epochs: int, value: float) -> None:
        """Set the state to pruned: a search has ended the run early.

        Args:
            epochs: number of epochs of training.
            value: the last value of the metric of the search.
        """
        self._write_status("pruned", epochs=epochs, value=value)

    def archive(self) -> Path:
        """Move the folder to ``replaced/`` beside it.

        Returns:
            The new path.
        """
        name = f"{self.folder.name}_{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
        archived = self.folder.parent / REPLACED / name
        archived.parent.mkdir(exist_ok=True)
        self.folder.rename(archived)
        return archived

    def _write_status(
        self,
        state: State,
        **details: Any,
    ) -> None:
        status = {
            "state": state,
            "time": _now(),
            **details,
        }
        with _status_lock:
            write_json(self.folder, "status.json", status)

    def _json(self, name: str) -> dict[str, Any] | None:
        file = self.folder / name
        if not file.is_file():
            return None
        try:
            content = read_json(file)
        except DocumentError as error:
            raise self._damaged(name, str(error)) from error
        if not isinstance(content, dict):
            raise self._damaged(name, f"it contains a {type(content).__name__}")
        types = FILE_KEYS.get(name, {})
        wrong = []
        for key, kind in types.items():
            if not fits(content.get(key), kind):
                wrong.append(key)
        if wrong:
            raise self._damaged(name, f"{', '.join(wrong)} is missing or invalid")
        return content

    def _damaged(
        self,
        name: str,
        reason: str,
    ) -> ConfigurationError:
        file = format_path(self.folder / name)
        return ConfigurationError(f"{file} is damaged: {reason}{self._repair_advice(name)}")

    def _yaml(self, name: str) -> dict[str, Any]:
        file = self.folder / name
        if not file.is_file():
            raise ConfigurationError(f"{self} is not a complete run: it has no {name}")
        try:
            content = read_yaml(file)
        except DocumentError as error:
            raise ConfigurationError(f"{format_path(file)} is damaged: {error}") from error
        if not isinstance(content, dict):
            kind = type(content).__name__
            raise ConfigurationError(f"{format_path(file)} is damaged: it contains a {kind}")
        return content

    def _repair_advice(self, name: str) -> str:
        """Say what to do about a damaged file that can be created again."""
        advice = {
            "status.json": "remove it and repeat the command, which then resumes",
            "result.json": (
                f"type mode=evaluate run={self} to evaluate the run again, or force=true to train "
                "it again"
            ),
            "data_fingerprint.json": "remove it and repeat the command",
            "environment.json": "remove it",
        }
        if name in advice:
            return f"\nTo fix this, {advice[name]}."
        return ""


def _describe_contents(folder: Path, key: str) -> str:
    """Explain that a folder is not a run, and list the runs in or near it."""
    if not folder.is_dir():
        near = sorted(path.parent.name for path in folder.parent.glob("*/config.yaml"))
        runs = f"; {folder.parent} contains the runs {summarize_names(near, 10)}" if near else ""
        return f"there is no such folder{runs}"
    inside = sorted(path.parent for path in folder.rglob("config.yaml"))
    if inside:
        lines = [f"  {key}={path}" for path in inside[:MAX_LISTED_RUNS]]
        return "\n".join(["this folder contains several runs; type one of", *lines])
    return "this folder does not contain a run (no config.yaml)"


def _is_choice(name: Any) -> bool:
    return name is None or re.fullmatch(r"[\w.-]+", str(name)) is not None


def hostname() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


_status_lock = threading.Lock()
"""Held while the status is written, so that a heartbeat does not overwrite a newer state."""


def _process_info() -> dict[str, Any]:
    return {
        "host": hostname(),
        "pid": os.getpid(),
        "heartbeat": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
