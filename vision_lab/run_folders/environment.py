"""The environment of a run: versions, machine and commit. Does not import torch."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("vision_lab", "torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics"),
    *("numpy", "pillow"),
)
"""Packages whose versions are recorded."""

GIT_TIMEOUT_SECONDS = 10


def describe_environment() -> tuple[dict[str, Any], str]:
    """Describe what a run depends on besides its config.

    Returns:
        The environment, as written to ``environment.json``; and the uncommitted changes to this
        package as a diff, empty if it is not in a git repository.
    """
    versions = {package: _version(package) for package in PACKAGES}
    commit = _run_git("rev-parse", "HEAD")
    difference = _run_git("diff", "HEAD") if commit else ""
    environment = {
        "python": platform.python_version(),
        "versions": versions,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit.strip() or None,
        "uncommitted": bool(difference),
    }
    return environment, difference


@cache  # a search of all installed packages
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _run_git(*arguments: str) -> str:
    """Run git in the repository of this package; return its output, empty if there is none."""
    package = Path(__file__).resolve().parents[1]
    if not (package.parent / ".git").exists():
        return ""
    command = ["git", "-C", str(package), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT_TIMEOUT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
