"""Names and locations of run folders and sweep folders. Does not import torch."""

from __future__ import annotations

import re
from hashlib import blake2b
from pathlib import Path

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import expand_home, format_path

OUTPUTS = Path("outputs")

MAX_NAME_LENGTH = 120
"""Maximum length of a folder name; longer names are cut and end with a hash of the full name."""

REPLACED = "replaced"
"""Name of the folder that keeps the runs replaced by ``force=true``, beside the new ones."""


def run_folder(
    name: str | None,
    task: str,
    model: str,
    head: str,
    data: str,
    mode: str,
    run: str | None,
    resume: str | None,
    now: str,
) -> str:
    """Return the folder that a command writes to.

    A training writes to ``outputs/<name>``, or without a name to a folder named by its choices and
    the time. Other modes write to a subfolder of the run they use.

    Args:
        name: the key ``name``.
        task: the choice of the group; ``model``, ``head``, ``data`` and ``mode`` likewise.
        model: see ``task``.
        head: see ``task``.
        data: see ``task``.
        mode: see ``task``.
        run: the key ``run``.
        resume: the key ``resume``.
        now: the time, as part of a folder name.

    Raises:
        ConfigurationError: if the keys contradict each other, or the name is reserved.
    """
    if mode != "train":
        if resume:
            path = format_path(Path(resume))
            raise ConfigurationError(
                f"resume= continues a training: for mode={mode}, type run={path}"
            )
        folder = expand_home(run) / mode if run else OUTPUTS / mode / now
        return str(folder.absolute())
    if resume:
        return str(expand_home(resume))
    if name:
        return str(OUTPUTS / _named_folder(name))
    return str(OUTPUTS / safe_dir_name(task) / safe_dir_name(f"{model}-{head}-{data}") / now)


def sweep_folder(
    name: str | None,
    task: str,
    now: str,
) -> str:
    """Return the folder that contains the runs of a sweep.

    Args:
        name: the key ``name``.
        task: the choice of the group.
        now: the time, as part of a folder name.

    Raises:
        ConfigurationError: if the name is reserved.
    """
    folder = (
        OUTPUTS / _named_folder(name) if name else OUTPUTS / safe_dir_name(task) / f"sweep-{now}"
    )
    return str(folder)


def _named_folder(name: str) -> str:
    folder = safe_dir_name(name)
    if folder == REPLACED:
        raise ConfigurationError(
            f"name={name}: this folder is reserved for replaced runs: type another name="
        )
    return folder


def safe_dir_name(text: str, default: str = "run") -> str:
    """Convert a text to a valid folder name, such that different texts have different names.

    Args:
        text: any text.
        default: the name for a text without any valid character.

    Returns:
        At most ``MAX_NAME_LENGTH`` characters of ``[A-Za-z0-9._-]``.

    >>> safe_dir_name("model-resnet18_optimizer.lr-0.1")
    'model-resnet18_optimizer.lr-0.1'
    """
    text = str(text)  # Hydra parses name=7 as an integer, and name=nan as a float
    clean = re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.") or default
    if clean == (text or default) and len(clean) <= MAX_NAME_LENGTH:
        return clean
    digest = blake2b(text.encode(), digest_size=4).hexdigest()
    return f"{clean[: MAX_NAME_LENGTH - len(digest) - 1]}-{digest}"
