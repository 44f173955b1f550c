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
    opencv = _import("cv2", "OpenCV", needed_by)
    _import("cv2.ximgproc", "OpenCV", needed_by)  # missing from builds without contributed modules
    return opencv


def import_scipy_optimize(needed_by: str) -> Any:
    """Import SciPy's optimizers.

    Args:
        needed_by: what requires them, for the error.

    Raises:
        ConfigurationError: if SciPy is not installed.
    """
    return _import("scipy.optimize", "SciPy", needed_by)


def _import(module: str, package: str, needed_by: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"{needed_by} requires {package}: type pip install 'vision_lab[classic]'"
        ) from error
