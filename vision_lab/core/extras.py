"""Packages that are installed with an extra of vision_lab. Does not import torch."""

from __future__ import annotations

import importlib
from typing import Any

from vision_lab.core.errors import ConfigurationError


def import_opencv(needed_by: str) -> Any:
    """Import OpenCV with its contributed modules.

    Args:
        needed_by: what requires it, for the error.

    Raises:
        ConfigurationError: if it is not installed.
    """
    try:
        opencv = importlib.import_module("cv2")
        importlib.import_module("cv2.ximgproc")  # missing from builds without contributed modules
    except ImportError as error:
        raise ConfigurationError(
            f"{needed_by} requires OpenCV: type pip install 'vision_lab[classic]'"
        ) from error
    return opencv
