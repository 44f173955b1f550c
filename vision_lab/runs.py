"""A run's folder: where it is, what state it is in, what it holds. No torch here."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml

from vision_lab.types import ConfigurationError

State = Literal["running", "finished", "failed"]

LONGEST = 120
"""Characters of a folder's name; longer ones are cut and end with a hash of the whole."""

VERSIONS = ("vision_lab", "torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics", "numpy", "pillow")


@dataclass(frozen=True)
class Run:
    """One folder under ``outputs/``."""

    folder: Path

    @classmethod
    def existing(cls, path: str) -> Run:
        """The run in a folder.

        Raises:
            ConfigurationError: where the folder holds none.
        """
        folder = Path(path).expanduser()
        if not (folder / "config.yaml").is_file():
            raise ConfigurationError(f"run={path}: {_what_is_there(folder)}")
        return cls(folder)

    @property
    def weights(self) -> Path:
        """The best checkpoint's network as a bare state dict."""
        return self.folder / "model.pth"

    @property
    def state(self) -> State | None:
        """What ``status.json`` says; None where there is none."""
        file = self.folder / "status.json"
        return json.loads(file.read_text(encoding="utf-8"))["state"] if file.is_file() else None

    @property
    def error(self) -> str:
        """The first line of what a failed run failed with."""
        status = json.loads((self.folder / "status.json").read_text(encoding="utf-8"))
        return str(status.get("error", "")).split("\n", 1)[0]

    @property
    def config(self) -> dict[str, Any]:
        """The composed config, unresolved."""
        return self._yaml("config.yaml")

    @property
    def choices(self) -> dict[str, str | None]:
        """group: the choice made, as it was typed or defaulted."""
        return dict(self._yaml("overrides.yaml")["choices"])

    @property
    def result(self) -> dict[str, Any] | None:
        """``result.json``; None before the run is finished."""
        file = self.folder / "result.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    @property
    def spec(self) -> dict[str, Any]:
        """What its network takes and says: classes, size, channels, normalisation."""
        file = self.folder / "spec.json"
        if not file.is_file():
            raise ConfigurationError(f"{self.folder} is not a whole run: it has no spec.json")
        return dict(json.loads(file.read_text(encoding="utf-8")))

    def refuse_if_taken(self) -> None:
        """Refuse a folder that holds a run already.

        Raises:
            ConfigurationError: where it does.
        """
        if self.state is not None:
            raise ConfigurationError(
                f"{self.folder} holds a {self.state} run: type another name=, or remove the folder"
            )

    def begin(
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
        self.folder.mkdir(parents=True, exist_ok=True)
        told = yaml.safe_dump({"overrides": list(overrides), "choices": dict(choices)}, sort_keys=False)
        environment, difference = _environment()
        write(self.folder / "config.yaml", config)
        write(self.folder / "config_resolved.yaml", resolved)
        write(self.folder / "overrides.yaml", told)
        write(self.folder / "spec.json", _json(spec))
        write(self.folder / "environment.json", _json(environment))
        if difference:
            write(self.folder / "uncommitted.diff", difference)
        self._mark("running", host=socket.gethostname(), pid=os.getpid())

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json``; the run is finished."""
        write(self.folder / "result.json", _json(result))
        self._mark("finished")

    def fail(self, error: BaseException) -> None:
        """Record with what the run failed."""
        text = (str(error) or type(error).__name__) if isinstance(error, Exception) else "interrupted"
        self._mark("failed", error=text)

    def _mark(self, state: State, **details: Any) -> None:
        write(self.folder / "status.json", _json({"state": state, "time": _now(), **details}))

    def _yaml(self, name: str) -> dict[str, Any]:
        file = self.folder / name
        if not file.is_file():
            raise ConfigurationError(f"{self.folder} is not a whole run: it has no {name}")
        return dict(yaml.safe_load(file.read_text(encoding="utf-8")))


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def run_folder(
    name: str | None, task: str, model: str, head: str, data: str, mode: str, run: str | None, now: str
) -> str:
    """Where a single run lies: its name, or what it is made of and when; another mode below the run it is for."""
    if mode != "train":
        return str((Path(run).expanduser() if run else Path("outputs") / mode / now).absolute() / (mode if run else ""))
    if name:
        return str(Path("outputs") / folder_name(name))
    return str(Path("outputs") / task / folder_name(f"{model}-{head}-{data}") / now)


def sweep_folder(name: str | None, task: str, now: str) -> str:
    """Where a sweep's runs lie."""
    return str(Path("outputs") / folder_name(name) if name else Path("outputs") / task / f"sweep-{now}")


def folder_name(what: str, otherwise: str = "run") -> str:
    """A name of ``[A-Za-z0-9._-]``, at most ``LONGEST`` characters, no two alike for unlike ``what``.

    >>> folder_name("model-resnet18_optim.lr-0.1")
    'model-resnet18_optim.lr-0.1'
    """
    clean = re.sub(r"[^A-Za-z0-9._]+", "-", what).strip("-.") or otherwise
    if clean in (what, what or otherwise) and len(clean) <= LONGEST:
        return clean
    digest = blake2b(what.encode(), digest_size=4).hexdigest()
    return f"{clean[: LONGEST - len(digest) - 1]}-{digest}"


def _what_is_there(folder: Path) -> str:
    if not folder.is_dir():
        near = sorted(path.name for path in folder.parent.glob("*") if (path / "config.yaml").is_file())
        return "there is no such folder" + (f"; {folder.parent} holds the runs {', '.join(near[:10])}" if near else "")
    inside = sorted(path.parent for path in folder.rglob("config.yaml"))
    if inside:
        return "this folder holds several runs; type one of\n" + "\n".join(f"  run={path}" for path in inside[:20])
    return "this folder holds no run (no config.yaml)"


def _environment() -> tuple[dict[str, Any], str]:
    """What the run depends on besides its config, and the changes to our own code that no commit has."""
    versions = {}
    for package in VERSIONS:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    commit = _git("rev-parse", "HEAD")
    difference = _git("diff", "HEAD") if commit else ""
    return {
        "python": platform.python_version(),
        "versions": versions,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit.strip() or None,
        "uncommitted": bool(difference),
    }, difference


def _git(*words: str) -> str:
    """What git says of the folder our code lies in; nothing where there is no git or no repository."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
