"""The mode of a command. Does not import torch, unless the mode does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vision_lab.config.instantiation import instantiate
from vision_lab.config.resolution import Config
from vision_lab.config.validation import find_group_errors
from vision_lab.core.errors import ConfigurationError


def build_mode(config: Config) -> Callable[[Config, Path], Any]:
    """Build the mode, a function of the config and the output folder.

    Args:
        config: the config.

    Raises:
        ConfigurationError: if the group is invalid.
    """
    errors = find_group_errors(config, "mode")
    if errors:
        raise ConfigurationError("\n".join(errors))
    mode: Callable[[Config, Path], Any] = instantiate({**config["mode"], "_partial_": True}, "mode")
    return mode
