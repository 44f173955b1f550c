"""Whose code a config may call where the config itself comes from elsewhere, with a run's folder.

A name is not enough: ``torch.nn.modules.module.os.system`` starts with torch, and ``torch.hub.load`` runs whatever it
fetches. So what a name leads to must be at home in one of these places, and be a class where the place has functions
that are good for more than building parts.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from vision_lab.types import ConfigurationError

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

DEEPEST = 50
"""Levels of nodes in a config."""


def strangers(config: DictConfig, *, but_for: Collection[str]) -> list[str]:
    """What a config would call although nobody said that it may.

    Args:
        config: the whole config; its ``trust`` names further packages.
        but_for: top-level keys that did not come with the folder.
    """
    errors = []
    for key in [key for key in config if key not in but_for]:
        for place, node in _calls(config, str(key)):
            target = str(node["_target_"])
            if not named(target, config.trust) or not _admitted(target, node, config.trust):
                errors.append(
                    f"{place}._target_={target}: this comes with the run's folder and may run any code. Only if you "
                    f"trust whoever made it, type trust=[{target.split('.')[0]}]"
                )
    return errors


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


def _calls(node: Any, key: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Each (place, node) below a key that would be instantiated, as references lead to it."""
    try:
        value = node[key]
    except OmegaConfBaseException:
        return  # what cannot be resolved cannot be called
    place = f"{path}.{key}" if path else str(key)
    if place.count(".") > DEEPEST:
        raise ConfigurationError(f"{place[:80]}...: this refers to itself")
    if isinstance(value, DictConfig) and "_target_" in value:
        yield place, value
    if isinstance(value, DictConfig | ListConfig):
        for inner in list(value.keys()) if isinstance(value, DictConfig) else range(len(value)):
            yield from _calls(value, inner, place)


def _admitted(target: str, node: DictConfig, trusted: Sequence[str]) -> bool:
    try:
        found = get_object(target)  # as Hydra will find it: it also follows what a module has imported
    except Exception:  # whatever an import raises
        return True  # it cannot be called either; the check of its part says what is wrong
    return admits(found, node, trusted)
