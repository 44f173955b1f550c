"""Whose code a config may call where the config itself comes from elsewhere, with a run's folder.

A name is not enough: ``torch.nn.modules.module.os.system`` starts with torch, and ``torch.hub.load`` runs whatever it
fetches. So what a name leads to must be at home in one of these places, and be a class where the place has functions
that are good for more than building parts.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

BUILDERS = (
    *(f"vision_lab.{part}" for part in ("data", "heads", "models")),
    "torchvision.models",
    "timm.models",
)
"""Modules, with all below them, whose classes and functions may be called."""

CLASSES = (
    *(f"vision_lab.{part}" for part in ("callbacks", "checkpoints", "schedules", "tasks")),
    *("torch.nn", "torch.optim", "torchvision.datasets", "torchvision.transforms", "torchvision.ops", "torchmetrics"),
    "pytorch_lightning.trainer",
    *(f"pytorch_lightning.{part}" for part in ("callbacks", "loggers", "plugins", "profilers", "strategies")),
)
"""Modules, with all below them, whose classes may be made."""

FETCHING = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained", "_args_"}
"""Arguments by which timm's builders may load files that hold code, from here or from a hub."""


def at_home(name: str, places: Sequence[str]) -> bool:
    """Whether a dotted name lies in one of the places."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def named(target: str, trusted: Sequence[str]) -> bool:
    """Whether a name may be looked up at all: looking up imports modules."""
    packages = {place.split(".")[0] for place in (*BUILDERS, *CLASSES)} | set(trusted)
    return re.fullmatch(r"[\w.]+", target) is not None and at_home(target, sorted(packages))


def admits(found: Any, arguments: Mapping[Any, Any], trusted: Sequence[str]) -> bool:
    """Whether what a name led to may be called with these arguments."""
    home = str(getattr(found, "__module__", ""))
    if at_home(home, trusted):
        return True
    if at_home(home, ["timm"]):
        private = home.rpartition(".")[2].startswith("_") and home != "timm.models._factory"
        fetches = any(name in arguments for name in FETCHING) or ":" in str(arguments.get("model_name", ""))
        return not private and not fetches
    return at_home(home, BUILDERS) or (inspect.isclass(found) and at_home(home, CLASSES))
