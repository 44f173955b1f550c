"""What a run depends on besides its config: versions, machine, commit. No torch here."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("vision_lab", "torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics", "numpy", "pillow")


def describe_environment() -> tuple[dict[str, Any], str]:
    """What the run depends on besides its config, and the changes to our own code that no commit has."""
    versions = {}
    for package in PACKAGES:
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
    here = Path(__file__).resolve().parents[1]
    if not (here.parent / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
