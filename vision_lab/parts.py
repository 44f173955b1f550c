"""What the parts of a config are, which were chosen, and what is wrong with them, before any of them is built."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vision_lab.choices import CONF, groups
from vision_lab.types import ConfigurationError, UserError

OURS = {
    "data": {"spec"},
    "model": {"target"},
    "head": {"target", "weights", "published"},
    "task": {"target"},
    "optim": {"scale_lr"},
}
"""part: keys that are for ``build`` alone; no constructor takes them. ``target`` is one word for data's spec, head and
task: what the data holds, what the head is for, what the task learns from. A model that has it needs no head."""

PICTURES_ALONE = "none"
"""The target of a task that learns from pictures alone: any data will do, and the model is a pair by itself."""

WORDS = {PICTURES_ALONE: "pictures alone"}
"""target: how it is called in an error."""

GIVEN = {
    "data": {"spec", "transforms", "seed", "relabel"},
    "model": {"spec"},
    "head": {"backbone", "pair", "spec"},
    "task": {"network", "spec", "optimizer", "schedule", "seed", "features_name"},
    "optim": {"params"},
    "trainer": {"callbacks", "logger", "default_root_dir", "plugins"},
    "mode": {"config", "folder"},
    "model.classifier": {"num_classes"},
    "data.train": set(),
    "data.val": set(),
    "data.test": set(),
}
"""part: arguments that it is given later and so need not stand in a config; positional ones by their usual names."""


def check(config: DictConfig, parts: Sequence[str]) -> None:
    """Look the parts over before anything is built.

    Raises:
        ConfigurationError: with all that is wrong: values that are missing, references that lead nowhere, classes that
            cannot be found, arguments they do not take or miss, parts that do not go together.
    """
    errors = [error for part in parts for error in misfits(config, part)]
    errors += _misfit_parts(config) if "task" in parts else []
    if errors:
        raise ConfigurationError("\n".join(dict.fromkeys(errors)))


def misfits(config: DictConfig, part: str) -> list[str]:
    """What is wrong with one part by itself."""
    node = config[part]
    if node is None:
        return []
    if not node and part not in ("callbacks", "logger"):
        return [f"{part}={choices().get(part)} is empty: its file in conf/{part}/ says nothing"]
    return _unresolved(node, part) + _misfit_arguments(node, part)


def choices_made() -> dict[str, str | None]:
    """group: the choice as Hydra composed it: ``_saved`` where the run of ``run=`` decides; empty outside a command."""
    if not HydraConfig.initialized():
        return {}
    made = HydraConfig.get().runtime.choices.items()
    return {group: choice for group, choice in made if "/" not in group and group != "replay"}


def choices() -> dict[str, str | None]:
    """group: the choice made, on this command line or by the run that ``run=`` names; empty outside a command."""
    return {group: OmegaConf.create({"name": f"${{choice:{group}}}"}).name for group in choices_made()}


def _unresolved(node: Any, path: str) -> list[str]:
    """Values that are missing (``???``) and references that lead nowhere."""
    errors = []
    for key in _keys(node):
        place = f"{path}.{key}"
        if OmegaConf.is_missing(node, key):
            errors.append(f"{place} is missing: type {place}=...")
            continue
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            if not _blamed_on_missing(error):
                errors.append(_cause(error, place))
            continue
        if OmegaConf.is_config(value) and not OmegaConf.is_interpolation(node, key):
            errors += _unresolved(value, place)
    return errors


def _keys(node: Any) -> list[Any]:
    return list(node.keys()) if isinstance(node, DictConfig) else list(range(len(node)))


def _blamed_on_missing(error: BaseException) -> bool:
    """A reference to a value that is missing is named where the value is."""
    return "MissingMandatoryValue" in str(error) or "Missing mandatory value" in str(error)


def _cause(error: BaseException, place: str) -> str:
    """The words of a resolver of ours, which say all; else OmegaConf's and the place."""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, UserError):
            return str(current)
        current = current.__cause__ or current.__context__
    return f"{place}: {str(error).splitlines()[0]}"


def _misfit_arguments(node: Any, path: str) -> list[str]:
    """Classes that cannot be found, arguments they do not take, and arguments they miss."""
    aside = facts(node, path)
    given = GIVEN.get(path, set())
    if not OmegaConf.is_config(node):
        return []
    errors: list[str] = []
    keys = _keys(node)
    for key in keys:
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key) and key not in aside:
            errors += _misfit_arguments(node[key], f"{path}.{key}")
    if not isinstance(node, DictConfig) or "_target_" not in node:
        return errors
    try:
        target = _located(node["_target_"])
    except (ImportError, AttributeError, ValueError) as error:
        return [*errors, f"{path}._target_={node['_target_']} cannot be found: {error}"]
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # some of C's functions do not say
        return errors
    parameters = signature.parameters.values()
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    taken = {str(key) for key in keys if not str(key).startswith("_")} - aside
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in sorted(taken - named):
            takes = ", ".join(sorted(named - given))
            errors.append(f"{path}.{name}: {target.__name__} takes no such argument; it takes {takes or 'none'}")
    if not node.get("_partial_", False) or path in GIVEN:
        needed = {p.name for p in parameters if p.default is p.empty and p.name in named}
        for name in sorted(needed - taken - given):
            errors.append(f"{path}.{name} is missing: {target.__name__} needs it: type +{path}.{name}=...")
    return errors


def facts(node: Any, part: str) -> set[str]:
    """Keys of a part that its constructor does not take: those for ``build``, and those that others of it point at.

    So a data set's own options (``data.root``) lie in its group without the DataModule knowing them.
    """
    if "." in part or not isinstance(node, DictConfig):
        return set()
    pointed_at = set(re.findall(rf"\${{{part}\.(\w+)", OmegaConf.to_yaml(node)))
    try:
        taken = set(inspect.signature(_located(node["_target_"])).parameters)
    except (ImportError, AttributeError, ValueError, TypeError, KeyError):
        taken = set()  # what is wrong with it is said elsewhere
    return OURS.get(part, set()) | (pointed_at - taken)


def _located(name: str) -> Callable[..., Any]:
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ValueError("a dotted name is needed: package.module.Name")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


def _choices_for(group: str, target: str) -> list[str]:
    return [choice.name for choice in groups([CONF])[group] if target in choice.targets]


def _misfit_parts(config: DictConfig) -> list[str]:
    """Data whose targets the task cannot learn from; a head, or a model without one, that is for another target."""
    wanted = config.task.get("target")
    found = {"head": config.head.get("target"), "model": config.model.get("target")}
    if wanted != PICTURES_ALONE:
        found["data"] = config.data.spec.get("target")
    elif not found["model"]:
        pairs = " or ".join(_choices_for("model", PICTURES_ALONE))
        return [
            f"model={choices().get('model')} is one network, but task={choices().get('task')} takes a pair that makes "
            f"pictures: type model={pairs} head=none"
        ]
    differing = {group: target for group, target in found.items() if wanted and target not in (None, wanted)}
    return [_misfit(group, target, wanted) for group, target in differing.items()]


def _misfit(group: str, found: str, wanted: str) -> str:
    """What does not go together, and what does."""
    names = choices()
    says = (
        f"{group}={names.get(group)} is for {WORDS.get(found, found)}, but task={names.get('task')} learns from "
        f"{WORDS.get(wanted, wanted)}"
    )
    fitting = {g: _choices_for(g, target) for g, target in ((group, wanted), ("task", found))}
    typed = [f"{g}={' or '.join(options[:6])}" for g, options in fitting.items() if options]
    typed = ["another model=", *typed] if group == "model" and found == PICTURES_ALONE else typed
    return f"{says}: type {', or '.join(typed)}" if typed else says
