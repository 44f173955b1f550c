"""vision_lab: experiments in computer vision, from the command line and from Python.

    import vision_lab

    run = vision_lab.train("model=resnet18", "data=folder", "data.root=flowers", "name=flowers")
    run.predict("photo.jpg").class_name

Importing this package is fast: torch is imported when one of its functions is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vision_lab.api.commands import compose as compose
    from vision_lab.api.runs import Runs as Runs
    from vision_lab.api.runs import TrainedRun as TrainedRun
    from vision_lab.api.runs import load as load
    from vision_lab.api.runs import runs as runs
    from vision_lab.api.runs import train as train

_HOMES = {
    "Runs": "vision_lab.api.runs",
    "TrainedRun": "vision_lab.api.runs",
    "compose": "vision_lab.api.commands",
    "load": "vision_lab.api.runs",
    "runs": "vision_lab.api.runs",
    "train": "vision_lab.api.runs",
}
"""The module of each public name."""

__all__ = ["Runs", "TrainedRun", "compose", "load", "runs", "train"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
