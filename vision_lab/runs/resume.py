"""The same command once more: what a run's folder already holds decides what is left to do. No torch here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import yaml

from vision_lab.config.resolution import Config
from vision_lab.core.documents import Loader
from vision_lab.core.errors import ConfigurationError, DataError
from vision_lab.runs.environment import PACKAGES, describe_environment
from vision_lab.runs.folder import Run

RunProgress = Literal["new", "begun", "finished"]

IGNORED_KEYS = (
    *("name", "run", "source", "resume", "force", "trust", "mode"),
    *("data.num_workers", "data.root", "callbacks.progress_bar", "trainer.profiler"),
    *("callbacks.resume_checkpoint.every_n_steps", "callbacks.resume_checkpoint.every_n_minutes"),
)
"""Keys, with all below them, that may differ between two commands for one run: they do not change its numbers. What
lies under ``data.root`` is held against the stored fingerprint instead, so that a data set may move."""

MAX_LISTED_KEYS = 12
"""Differing keys that are listed."""

MAX_HASHED_FILES = 100_000
"""Files that are looked at in a moment."""


def run_progress(run: Run, config: Config) -> RunProgress:
    """How far the run of this command has come.

    Raises:
        ConfigurationError: where the folder holds something else: runs of a sweep, or a run that was told otherwise.
    """
    if (run.folder / "multirun.yaml").exists():  # which Hydra writes
        raise ConfigurationError(f"{run} is a sweep: type another name=, or -m to add to it")
    if not run.is_initialized:
        if _holds_foreign_files(run):
            raise ConfigurationError(f"{run} holds other things and no run: type another name=")
        return "new"
    if config["force"]:
        return "new"
    differing = config_differences(run, config)
    if differing:
        listed = [
            f"  {key}: {then} in the run, {now} now" for key, (then, now) in list(differing.items())[:MAX_LISTED_KEYS]
        ]
        listed += [f"  and {len(differing) - MAX_LISTED_KEYS} more"] if len(differing) > MAX_LISTED_KEYS else []
        raise ConfigurationError(
            f"{run} holds a {run.state} run of another config:\n"
            + "\n".join(listed)
            + f"\nType another name=; or resume={run} to take what it was told; or force=true to start over "
            "(the old folder is kept)."
        )
    return "finished" if run.state == "finished" else "begun"


def _holds_foreign_files(run: Run) -> bool:
    """Whether a folder that holds no run holds anything but traces of one that came to nothing."""
    found = {path.name for path in run.folder.iterdir()} if run.folder.is_dir() else set()
    return bool(found - {".lock"}) and "status.json" not in found


def config_differences(run: Run, config: Config) -> dict[str, tuple[Any, Any]]:
    """key: (value in the run, value now), of all that differ and matter."""
    then = flatten_keys(run.config)
    now = flatten_keys(yaml.load(config.source, Loader))
    keys = [key for key in dict.fromkeys([*then, *now]) if not _is_ignored(key)]
    absent = "nothing"
    return {
        key: (then.get(key, absent), now.get(key, absent))
        for key in keys
        if then.get(key, absent) != now.get(key, absent)
    }


def check_data_unchanged(run: Run, data: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare the fingerprints of the data with those it was begun with.

    Args:
        run: the run.
        data: split: its fingerprint now.

    Raises:
        DataError: where they differ.
    """
    then = run.data
    if then is None or all(then.get(split) == now for split, now in data.items()):
        return
    changed = []
    for split, now in data.items():
        before = then.get(split, {})
        differing = [
            f"{what} {before.get(what)} then, {now[what]} now" for what in now if before.get(what) != now[what]
        ]
        changed += [f"  {split}: {', '.join(differing)}"] if differing else []
    raise DataError(
        f"the data has changed since {run} was begun:\n"
        + "\n".join(changed)
        + "\nPut it back, or type another name=, or force=true to start over (the old folder is kept)."
    )


def hash_file_listing(root: str | None) -> dict[str, Any]:
    """How many files lie below ``data.root``, and a hash of their names and sizes: what a finished run is held against.

    It takes no torch, and a second for 100,000 files; of more it says nothing.
    """
    digest, count = blake2b(digest_size=8), 0
    for folder, below, names in os.walk(Path(root).expanduser()) if root else ():
        below.sort()
        for path in (Path(folder, name) for name in sorted(names)):
            line = f"{path.relative_to(Path(root or '').expanduser())}:{path.lstat().st_size}\n"
            digest.update(line.encode(errors="surrogateescape"))
        count += len(names)
        if count > MAX_HASHED_FILES:
            return {}
    return {"count": count, "files": digest.hexdigest()} if count else {}


def data_root_change(run: Run, root: str | None) -> str | None:
    """What has changed below ``data.root`` since a run, where that can be told in a moment."""
    then = (run.data or {}).get("root")
    now = hash_file_listing(root) if then else None
    if not then or not now or then == now:
        return None
    count = then.get("count")
    counts = f": {count} files then, {now['count']} now" if count != now["count"] else ""
    return f"what lies in {root} has changed since{counts}; the result is that of the data as it was"


def environment_changes(run: Run) -> str | None:
    """What else is not as it was when the run was begun, and may change the last bits of its numbers."""
    then, (now, _) = run.environment, describe_environment()
    differing = [
        f"{package} {then['versions'].get(package)} then, {now['versions'][package]} now"
        for package in PACKAGES
        if then.get("versions", {}).get(package, now["versions"][package]) != now["versions"][package]
    ]
    if then.get("commit") != now["commit"]:
        differing.append(f"commit {str(then.get('commit'))[:8]} then, {str(now['commit'])[:8]} now")
    return "; ".join(differing) or None


def _is_ignored(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in IGNORED_KEYS)


def flatten_keys(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key: value."""
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= flatten_keys(value, f"{prefix}.{key}" if prefix else str(key))
    return found
