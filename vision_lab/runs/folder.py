"""A run's folder: where it is, what state it is in, what it holds. No torch here."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml

from vision_lab.core.arguments import check_value, fits
from vision_lab.core.documents import DocumentError, read_json, read_yaml
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import format_path, write_file
from vision_lab.core.spec import DataSpec
from vision_lab.runs import environment
from vision_lab.runs.naming import REPLACED

State = Literal["pending", "running", "finished", "failed"]


FILE_KEYS: dict[str, dict[str, Any]] = {
    "result.json": {
        "metrics": dict[str, float],
        "per_class": dict[str, dict[str, float]],
        "monitored": dict[str, float],
        "measured_with": dict[str, Any] | None,
    },
    "environment.json": {"versions": dict[str, str]},
}
"""file: what is read of it again, and what that may be."""


@dataclass(frozen=True)
class Run:
    """One folder under ``outputs/``."""

    folder: Path

    def __str__(self) -> str:
        """As a person would type it from here."""
        return format_path(self.folder)

    @classmethod
    def open(cls, path: str, *, key: str = "run", prefix: str = "") -> Run:
        """The run in a folder.

        Args:
            path: the folder.
            key: by which it was typed.
            prefix: that was typed before the folder.

        Raises:
            ConfigurationError: where the folder holds none.
        """
        folder = Path(path).expanduser()
        if not (folder / "config.yaml").is_file():
            raise ConfigurationError(f"{key}={prefix}{path}: {_describe_contents(folder, key)}")
        return cls(folder)

    @property
    def weights(self) -> Path:
        """The best checkpoint's network as a bare state dict."""
        return self.folder / "model.pth"

    @property
    def status(self) -> dict[str, Any]:
        """What ``status.json`` says: state, time, and what goes with the state; empty where there is none."""
        return self._json("status.json") or {}

    @property
    def state(self) -> State | None:
        """How far it is; None where nobody has begun it."""
        state = self.status.get("state")
        return state if state in get_args(State) else None

    @property
    def error(self) -> str:
        """The first line of what a failed run failed with."""
        return str(self.status.get("error", "")).split("\n", 1)[0]

    @property
    def is_initialized(self) -> bool:
        """Whether it holds what it was told: a command refused before it began leaves only its error."""
        return (self.folder / "config.yaml").is_file()

    @property
    def config(self) -> dict[str, Any]:
        """The composed config, unresolved."""
        return self._yaml("config.yaml")

    @property
    def resolved(self) -> dict[str, Any]:
        """The composed config, its references followed."""
        return self._yaml("config_resolved.yaml")

    @property
    def choices(self) -> dict[str, str | None]:
        """group: the choice made, as it was typed or defaulted."""
        found = self._yaml("overrides.yaml").get("choices")
        names = found.values() if isinstance(found, dict) else [found, "${"]
        # They may be a stranger's, and end up in folders' names and in references.
        if not all(name is None or re.fullmatch(r"[\w.-]+", str(name)) for name in names):
            raise ConfigurationError(
                f"{self.folder / 'overrides.yaml'}: choices are names of files in conf/"
            )
        return dict(found)  # type: ignore[arg-type]  # a dict: see above

    @property
    def result(self) -> dict[str, Any] | None:
        """``result.json``; None before the run is finished.

        Raises:
            ConfigurationError: if the file is damaged, or not what a run writes.
        """
        found = self._json("result.json")
        if found is not None and not found["monitored"]:
            raise self._damaged("result.json", "monitored is empty")
        return found

    @property
    def data(self) -> dict[str, Any] | None:
        """split: the fingerprint of the data it learns from; None before they are taken."""
        found = self._json("data_fingerprint.json")
        if found is not None and not fits(found, dict[str, dict[str, Any]]):
            raise self._damaged("data_fingerprint.json", "a mapping for each split is needed")
        return found

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, machine and commit it was begun with."""
        return self._json("environment.json") or {}

    @property
    def spec(self) -> dict[str, Any]:
        """What its network takes and says: classes, size, channels, normalisation.

        Raises:
            ConfigurationError: if the file is missing or damaged, or holds anything else.
        """
        found = self._json("data_spec.json")
        if found is None:
            raise ConfigurationError(f"{self} is not a whole run: it has no data_spec.json")
        annotations = get_type_hints(DataSpec, include_extras=True)
        problems = [f"{key} is missing" for key in annotations if key not in found]
        problems += [f"there is no {key}" for key in found if key not in annotations]
        if not problems:
            checked = [
                check_value(key, found[key], annotation) for key, annotation in annotations.items()
            ]
            problems = [problem for problem in checked if problem]
        if problems:
            file = format_path(self.folder / "data_spec.json")
            raise ConfigurationError(f"{file} is not what a run writes: {'; '.join(problems)}")
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
        """Write what the run was told and where it runs, before anything is done.

        Args:
            spec: what its network takes and says, for whoever loads ``model.pth``.
            config: the composed config, unresolved, as YAML.
            resolved: the same with all references followed.
            overrides: the words of the command line.
            choices: group: choice.
        """
        told = yaml.safe_dump(
            {"overrides": list(overrides), "choices": dict(choices)}, sort_keys=False
        )
        facts, difference = environment.describe_environment()
        write_file(self.folder, "config_resolved.yaml", resolved)
        write_file(self.folder, "overrides.yaml", told)
        write_file(self.folder, "data_spec.json", _to_json(spec))
        write_file(self.folder, "environment.json", _to_json(facts))
        if difference:
            write_file(self.folder, "uncommitted.diff", difference)
        write_file(self.folder, "config.yaml", config)  # the last: with it the run is told

    def write_data_fingerprint(self, data: Mapping[str, Any]) -> None:
        """Keep the fingerprints of the data."""
        write_file(self.folder, "data_fingerprint.json", _to_json(data))

    def mark_pending(self) -> None:
        """Its folder is taken; what it needs is being prepared."""
        self._write_status("pending", **_process_info())

    def start(self) -> None:
        """It trains from now on."""
        self._write_status("running", **_process_info())

    def write_heartbeat(self) -> None:
        """Say that its process is alive."""
        with _status_lock:
            status = self.status
            if status.get("state") in ("pending", "running"):
                write_file(self.folder, "status.json", _to_json(status | {"heartbeat": _now()}))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json``; the run is finished."""
        write_file(self.folder, "result.json", _to_json(result))
        self._write_status("finished")

    def fail(self, error: BaseException) -> None:
        """Record with what the run failed."""
        text = (
            (str(error) or type(error).__name__) if isinstance(error, Exception) else "interrupted"
        )
        self._write_status("failed", error=text)

    def archive(self) -> Path:
        """Move the folder to where old runs are kept, ``replaced/`` beside it; say where that is."""
        aside = (
            self.folder.parent
            / REPLACED
            / f"{self.folder.name}_{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
        )
        aside.parent.mkdir(exist_ok=True)
        self.folder.rename(aside)
        return aside

    def _write_status(self, state: State, **details: Any) -> None:
        with _status_lock:
            write_file(
                self.folder, "status.json", _to_json({"state": state, "time": _now(), **details})
            )

    def _json(self, name: str) -> dict[str, Any] | None:
        file = self.folder / name
        if not file.is_file():
            return None
        try:
            content = read_json(file)
        except DocumentError as error:
            raise self._damaged(name, str(error)) from error
        if not isinstance(content, dict):
            raise self._damaged(name, f"it holds a {type(content).__name__}")
        wrong = [
            key for key, kind in FILE_KEYS.get(name, {}).items() if not fits(content.get(key), kind)
        ]
        if wrong:
            raise self._damaged(name, f"{', '.join(wrong)} is not what a run writes")
        return content

    def _damaged(self, name: str, reason: str) -> ConfigurationError:
        file = format_path(self.folder / name)
        return ConfigurationError(f"{file} is damaged: {reason}{self._cure(name)}")

    def _yaml(self, name: str) -> dict[str, Any]:
        file = self.folder / name
        if not file.is_file():
            raise ConfigurationError(f"{self} is not a whole run: it has no {name}")
        try:
            content = read_yaml(file)
        except DocumentError as error:
            raise ConfigurationError(f"{format_path(file)} is damaged: {error}") from error
        if not isinstance(content, dict):
            raise ConfigurationError(
                f"{format_path(file)} is damaged: it holds a {type(content).__name__}"
            )
        return content

    def _cure(self, name: str) -> str:
        """What to do about a file that can be made again."""
        cures = {
            "status.json": "remove it and repeat the command, which then resumes",
            "result.json": f"type mode=evaluate run={self} to measure the run again, or force=true to train it anew",
            "data_fingerprint.json": "remove it and repeat the command",
            "environment.json": "remove it",
        }
        return f"\nWhat helps: {cures[name]}." if name in cures else ""


def _describe_contents(folder: Path, key: str) -> str:
    if not folder.is_dir():
        near = sorted(
            path.name for path in folder.parent.glob("*") if (path / "config.yaml").is_file()
        )
        return "there is no such folder" + (
            f"; {folder.parent} holds the runs {', '.join(near[:10])}" if near else ""
        )
    inside = sorted(path.parent for path in folder.rglob("config.yaml"))
    if inside:
        return "this folder holds several runs; type one of\n" + "\n".join(
            f"  {key}={path}" for path in inside[:20]
        )
    return "this folder holds no run (no config.yaml)"


def hostname() -> str:
    """The name of the machine this process runs on."""
    return socket.gethostname()


_status_lock = threading.Lock()
"""The heartbeat must not overwrite what the run has come to meanwhile."""


def _process_info() -> dict[str, Any]:
    return {"host": hostname(), "pid": os.getpid(), "heartbeat": _now()}


def _to_json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
