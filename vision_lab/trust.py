"""Whose code a config may call where the config itself comes from elsewhere, with a run's folder.

A name is not enough: ``torch.nn.modules.module.os.system`` starts with torch, and ``torch.hub.load`` runs whatever it
fetches. So what a name leads to must be at home in one of these places, and be a class where the place has functions
that are good for more than building parts.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
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
    *("torch.nn", "torch.optim", "torchvision.transforms", "torchvision.ops"),
    # Not all of these: some data sets unpack archives or pickles that lie ready for them, and some measures load
    # networks with code of their own.
    *(f"torchvision.datasets.{name}" for name in ("mnist", "cifar", "svhn", "stl10", "folder", "voc", "coco")),
    *(f"torchmetrics.{name}" for name in ("aggregation", "classification", "collections", "detection", "segmentation")),
    "pytorch_lightning.trainer",
    *(f"pytorch_lightning.{part}" for part in ("callbacks", "loggers", "plugins", "profilers", "strategies")),
)
"""Modules, with all below them, whose classes may be made."""

PLACES = {"dirpath", "save_dir", "folder", "log_dir", "default_root_dir", "tracking_uri"}
"""Arguments of callbacks, loggers and trainers by which they write somewhere."""

FETCHING = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained", "_args_"}
"""Arguments by which timm's builders may load files that hold code, from here or from a hub."""

DEEPEST = 50
"""Levels of nodes in a config."""


def strangers(config: DictConfig, *, but_for: Collection[str], folder: Path) -> list[str]:
    """What a config would do although nobody said that it may.

    Args:
        config: the whole config; its ``trust`` names further packages.
        but_for: top-level keys that did not come with the run's folder.
        folder: where the command may write.
    """
    errors = []
    for key in [key for key in config if key not in but_for]:
        for place, value in _values(config, str(key)):
            if isinstance(value, str) and "${" in value:  # it would be followed when it is looked at once more
                errors.append(f"{place}: a reference within a reference comes with the run's folder")
            elif place.rpartition(".")[2] in PLACES and key in ("callbacks", "logger", "trainer"):
                path = str(value).removeprefix("file:")
                if value is not None and not Path(path).absolute().resolve().is_relative_to(
                    folder.absolute().resolve()
                ):
                    errors.append(f"{place}={value}: this comes with the run's folder and would write elsewhere")
            elif isinstance(value, DictConfig) and "_target_" in value:
                target = str(value["_target_"])
                if not named(target, config.trust) or not _admitted(target, value, config.trust):
                    errors.append(
                        f"{place}._target_={target}: this comes with the run's folder and may run any code. Only if "
                        f"you trust whoever made it, type trust=[{target.split('.')[0]}]"
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
    if "." in str(getattr(found, "__qualname__", ".")):  # a method
        return False
    if at_home(home, ["timm"]) and (
        any(name in arguments for name in FETCHING) or ":" in str(arguments.get("model_name", ""))
    ):
        return False
    if at_home(home, BUILDERS):
        return not home.rpartition(".")[2].startswith("_") or home == "timm.models._factory"
    return inspect.isclass(found) and at_home(home, CLASSES)


def _values(node: Any, key: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each (place, value) below a key, nodes too, as references lead to it."""
    try:
        value = node[key]
    except OmegaConfBaseException:
        return  # what cannot be resolved cannot be called
    place = f"{path}.{key}" if path else str(key)
    if place.count(".") > DEEPEST:
        raise ConfigurationError(f"{place[:80]}...: this refers to itself")
    yield place, value
    if isinstance(value, DictConfig | ListConfig):
        for inner in list(value.keys()) if isinstance(value, DictConfig) else range(len(value)):
            yield from _values(value, inner, place)


def _admitted(target: str, node: DictConfig, trusted: Sequence[str]) -> bool:
    try:
        found = get_object(target)  # as Hydra will find it: it also follows what a module has imported
    except Exception:  # whatever an import raises
        return True  # it cannot be called either; the check of its part says what is wrong
    return admits(found, node, trusted)
