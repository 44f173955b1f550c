"""Where the folders of runs and sweeps lie, and what they are called."""

from __future__ import annotations

import re
from hashlib import blake2b
from pathlib import Path

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import format_path

MAX_NAME_LENGTH = 120
"""Characters of a folder's name; longer ones are cut and end with a hash of the whole."""


REPLACED = "replaced"
"""The folder beside runs that keeps those which force=true has replaced."""


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
    """Where a single run lies: its name, or what it is made of and when; another mode below the run it is for."""
    if mode != "train":
        if resume:
            raise ConfigurationError(
                f"resume= goes on with a training: for mode={mode}, type run={format_path(Path(resume))}"
            )
        return str((Path(run).expanduser() if run else Path("outputs") / mode / now).absolute() / (mode if run else ""))
    if resume:
        return str(Path(resume).expanduser())
    if name:
        return str(Path("outputs") / _own_name(name))
    return str(Path("outputs") / safe_dir_name(task) / safe_dir_name(f"{model}-{head}-{data}") / now)


def sweep_folder(name: str | None, task: str, now: str) -> str:
    """Where a sweep's runs lie."""
    return str(Path("outputs") / _own_name(name) if name else Path("outputs") / safe_dir_name(task) / f"sweep-{now}")


def _own_name(name: str) -> str:
    """The folder of a run's name.

    Raises:
        ConfigurationError: if it is the one in which replaced runs are kept.
    """
    if safe_dir_name(name) == REPLACED:
        raise ConfigurationError(f"name={name}: runs that were replaced are kept there: type another name=")
    return safe_dir_name(name)


def safe_dir_name(what: str, otherwise: str = "run") -> str:
    """A name of ``[A-Za-z0-9._-]``, at most ``LONGEST`` characters, no two alike for unlike ``what``.

    >>> folder_name("model-resnet18_optim.lr-0.1")
    'model-resnet18_optim.lr-0.1'
    """
    what = str(what)  # Hydra reads name=7 as a number, and name=nan too
    clean = re.sub(r"[^A-Za-z0-9._]+", "-", what).strip("-.") or otherwise
    if clean in (what, what or otherwise) and len(clean) <= MAX_NAME_LENGTH:
        return clean
    digest = blake2b(what.encode(), digest_size=4).hexdigest()
    return f"{clean[: MAX_NAME_LENGTH - len(digest) - 1]}-{digest}"
