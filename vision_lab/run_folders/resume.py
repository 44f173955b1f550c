"""Decide what repeating a command means: start, resume, or show the finished result.

Does not import torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import yaml

from vision_lab.core.documents import Loader
from vision_lab.core.errors import ConfigurationError, DataError
from vision_lab.core.files import expand_home
from vision_lab.run_folders.environment import PACKAGES, describe_environment
from vision_lab.run_folders.folder import Run

RunProgress = Literal["new", "started", "finished", "pruned"]

IGNORED_KEYS = (
    *(
        "name",
        "seeds",
        "run",
        "runs",
        "source",
        "resume",
        "force",
        "extend",
        "trust",
        "remember",
        "mode",
    ),
    "search",
    *("data.num_workers", "data.root", "data.prefetch_shards", "data.cache_limit"),
    "data.shard_cache_limit",
    *("callbacks.progress_bar", "trainer.profiler"),
    *("trainer.keep_memory", "trainer.plugins.checkpoints.background"),
    *("callbacks.hparams", "callbacks.image_logger", "callbacks.sample_losses"),
    *(
        "callbacks.resume_checkpoint.every_n_steps",
        "callbacks.resume_checkpoint.every_n_minutes",
        "callbacks.resume_checkpoint.delete_when_finished",
    ),
)
"""Keys, including those below them, that may differ between two commands for the same run: they do
not change its results. Files below ``data.root`` are compared by fingerprint instead, so that a
dataset may move."""

MAX_LISTED_KEYS = 12
"""Maximum number of differing keys in an error message."""

MAX_HASHED_FILES = 100_000
"""Maximum number of files whose names and sizes are hashed, which takes about a second."""

ABSENT = "nothing"
"""Stands for the value of a key that only one of two configs has."""


def find_progress(
    run: Run,
    config: str,
    *,
    force: bool = False,
    extend: bool = False,
    is_trial: bool = False,
) -> RunProgress:
    """Determine how far the run of a command has come.

    Args:
        run: the run.
        config: the command's config as YAML, unresolved.
        force: whether the command replaces an existing run.
        extend: whether the command trains an existing run longer.
        is_trial: whether the command is a trial of a search; other commands continue a run that a
            search has ended early.

    Raises:
        ConfigurationError: if the folder contains a sweep, other files, or a run of another config;
            or if there is nothing to extend.
    """
    if (run.folder / "multirun.yaml").exists():  # written by Hydra
        raise ConfigurationError(f"{run} is a sweep: type another name=, or -m to add to it")
    if not run.is_initialized:
        if _has_foreign_files(run):
            raise ConfigurationError(
                f"{run} exists, but is not the folder of a run: type another name="
            )
        if extend:
            raise ConfigurationError(f"there is no run {run} to extend: type name= or resume=")
        return "new"
    if force:
        return "new"
    differences = find_config_differences(run, config)
    if extend:
        _check_extension(*differences.pop("trainer.max_epochs", (None, None)))
    if differences:
        raise ConfigurationError(
            f"{run} holds a {run.state} run of another config:\n"
            f"{_format_differences(differences)}\n"
            f"Type another name=; or resume={run} to continue with its config; or force=true to "
            "start over (the old folder is kept)."
        )
    if run.state == "finished" and not extend:
        return "finished"
    if run.state == "pruned" and is_trial:
        return "pruned"
    return "started"


def _check_extension(before: Any, after: Any) -> None:
    """Check that a run is extended by epochs.

    Raises:
        ConfigurationError: if it would not be trained longer.
    """
    is_longer = isinstance(before, int) and isinstance(after, int) and after > before
    if not is_longer:
        least = "" if before is None else f" above {before}"
        raise ConfigurationError(
            f"extend=true trains a run longer: type trainer.max_epochs=<a number{least}>"
        )


def find_extensions(run: Run, *, epochs: int) -> list[int]:
    """Return the numbers of epochs after which a run was finished before it was extended.

    Args:
        run: the run; its ``result.json`` is that of before.
        epochs: number of epochs of the extended run.
    """
    result = run.result
    if result is None or result["epochs"] >= epochs:
        return list(result.get("extended_from", [])) if result else []
    return [*result.get("extended_from", []), result["epochs"]]


def find_config_differences(run: Run, config: str) -> dict[str, tuple[Any, Any]]:
    """Compare the config of a run with another one, except for ``IGNORED_KEYS``.

    Args:
        run: the run.
        config: the other config as YAML, unresolved.

    Returns:
        For each differing key, its value in the run and in the other config.
    """
    stored = flatten_keys(run.config)
    current = flatten_keys(yaml.load(config, Loader))
    differences = {}
    for key in dict.fromkeys([*stored, *current]):
        values = stored.get(key, ABSENT), current.get(key, ABSENT)
        if values[0] != values[1] and not is_ignored(key):
            differences[key] = values
    return differences


def check_data_unchanged(run: Run, fingerprints: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare the fingerprints of the data with those that a run was started with.

    Args:
        run: the run.
        fingerprints: the current fingerprint of each split.

    Raises:
        DataError: if they differ, listing the differences.
    """
    stored = run.data
    if stored is None:
        return
    changes = []
    for split, current in fingerprints.items():
        before = stored.get(split, {})
        if before == current:
            continue
        differing = []
        for key in current:
            if before.get(key) != current[key]:
                differing.append(key)
        details = [f"{key} was {before.get(key)}, is {current[key]}" for key in differing]
        changes.append(f"  {split}: {', '.join(details)}")
    if changes:
        raise DataError(
            f"the data has changed since {run} was started:\n"
            + "\n".join(changes)
            + "\nRestore it, or type another name=, or force=true to start over "
            "(the old folder is kept)."
        )


def fingerprint_root(root: str | None) -> dict[str, Any]:
    """Hash the names and sizes of all files below ``data.root``, without reading them.

    Args:
        root: the folder; None for data without one.

    Returns:
        ``count`` and ``files`` (the hash); empty without files, or if there are more than
        ``MAX_HASHED_FILES``.
    """
    if not root:
        return {}
    top = expand_home(root)
    digest, count = blake2b(digest_size=8), 0
    for folder, subfolders, names in os.walk(top):
        subfolders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            line = f"{path.relative_to(top)}:{path.lstat().st_size}\n"
            digest.update(line.encode(errors="surrogateescape"))
        count += len(names)
        if count > MAX_HASHED_FILES:
            return {}
    if count:
        return {"count": count, "files": digest.hexdigest()}
    return {}


def describe_root_change(run: Run, root: str | None) -> str | None:
    """Describe how the files below ``data.root`` have changed since a run was started.

    Args:
        run: the run.
        root: the folder now.

    Returns:
        One sentence; None if nothing has changed, or if that cannot be determined quickly.
    """
    stored = (run.data or {}).get("root")
    current = fingerprint_root(root) if stored else None
    if not stored or not current or stored == current:
        return None
    counts = ""
    if stored.get("count") != current["count"]:
        counts = f" ({stored.get('count')} files before, {current['count']} now)"
    return f"the files in {root} have changed since{counts}: the result is that of the old files"


def describe_environment_changes(run: Run) -> str | None:
    """Describe differences in versions and commit that may change the last bits of results.

    Returns:
        The differences as one line; None without any.
    """
    stored, (current, _) = run.environment, describe_environment()
    stored_versions = stored.get("versions", {})
    changes = []
    for package in PACKAGES:
        version = current["versions"][package]
        before = stored_versions.get(package, version)
        if before != version:
            changes.append(f"{package} was {before}, is {version}")
    if stored.get("commit") != current["commit"]:
        before, now = str(stored.get("commit"))[:8], str(current["commit"])[:8]
        changes.append(f"commit was {before}, is {now}")
    return "; ".join(changes) or None


def flatten_keys(node: Any, prefix: str = "") -> dict[str, Any]:
    """Map the dotted key of each leaf of nested mappings to its value."""
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves |= flatten_keys(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def _has_foreign_files(run: Run) -> bool:
    """Return whether a folder without a run contains more than traces of an abandoned one."""
    names = {path.name for path in run.folder.iterdir()} if run.folder.is_dir() else set()
    return bool(names - {".lock"}) and "status.json" not in names


def _format_differences(differences: Mapping[str, tuple[Any, Any]]) -> str:
    lines = [f"  {key}: {old} in the run, {new} now" for key, (old, new) in differences.items()]
    hidden = len(lines) - MAX_LISTED_KEYS
    return "\n".join(lines[:MAX_LISTED_KEYS] + ([f"  and {hidden} more"] if hidden > 0 else []))


def is_ignored(key: str) -> bool:
    """Return whether a key, or one above it, is in ``IGNORED_KEYS``."""
    return any(key == ignored or key.startswith(f"{ignored}.") for ignored in IGNORED_KEYS)
