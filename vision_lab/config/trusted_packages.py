"""Packages that the user trusts in every command, listed in one file of theirs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from vision_lab.core.documents import DocumentError, dump_yaml, read_yaml
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import write_file


def trust_file() -> Path:
    """Return the path of the file: ``vision_lab/trust.yaml`` in the user's config folder."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "vision_lab" / "trust.yaml"


def remembered_packages() -> list[str]:
    """Return the packages in the file; none without it.

    Raises:
        ConfigurationError: if the file is not a list of names.
    """
    file = trust_file()
    if not file.is_file():
        return []
    try:
        names = read_yaml(file)
    except DocumentError as error:
        raise ConfigurationError(f"{file} cannot be read: {error}: fix or remove it") from error
    is_list = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    if not is_list:
        raise ConfigurationError(f"{file} must be a list of packages, - my_lab: fix or remove it")
    return list(names)


def remember_packages(names: Iterable[str]) -> None:
    """Add packages to the file.

    Args:
        names: the packages.
    """
    file = trust_file()
    known = remembered_packages()
    new = [name for name in names if name not in known]
    if new:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file.parent, file.name, dump_yaml([*known, *new]))
