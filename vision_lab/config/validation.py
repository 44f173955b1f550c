"""What is wrong with a config, all of it together, before any of its parts is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

from vision_lab.config.groups import CONFIG_DIR, groups
from vision_lab.config.instantiation import HYDRA_KEYS, locate
from vision_lab.config.ranges import PLAIN_KEYS, annotation_of
from vision_lab.config.resolution import Config, Unresolved, find_unresolved
from vision_lab.core.arguments import Count, check_value, fits, format_value, is_node
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.machine import core_count, memory_bytes
from vision_lab.core.signatures import get_parameters
from vision_lab.core.spec import DataSpec, Target

BUILD_KEYS = {
    "data": {"spec"},
    "model": {"target_type"},
    "head": {"target_type", "weights", "torchvision_name"},
    "task": {"target_type"},
    "optimizer": {"lr_reference_batch_size"},
}
"""part: keys that are for ``build`` alone; no constructor takes them. ``target`` is one word for data's spec, head and
task: what the data holds, what the head is for, what the task learns from. A model that has it needs no head."""

BUILD_ANNOTATIONS: dict[str, Any] = {
    "target_type": Target,
    "weights": str | None,
    "torchvision_name": str | None,
    "lr_reference_batch_size": Count | None,
}
"""What the values of these keys may be."""

GROUPS_OF_NODES = ("callbacks", "logger")
"""Parts whose values are each a node of its own, or null."""

NO_TARGET = "none"
"""The target of a task that learns from pictures alone: any data will do, and the model is a pair by itself."""

TARGET_DESCRIPTIONS = {NO_TARGET: "pictures alone"}
"""target: how it is called in an error."""

INJECTED_ARGUMENTS = {
    "data": {"spec", "transforms", "seed", "label_map"},
    "model": {"spec"},
    "head": {"backbone", "pair", "spec"},
    "task": {
        "network",
        "spec",
        "optimizer",
        "schedule",
        "seed",
        "feature_extractor",
        "feature_extractor_name",
    },
    "optimizer": {"params"},
    "trainer": {"callbacks", "logger", "default_root_dir"},
    "mode": {"config", "folder"},
    "model.network": {"num_classes"},
    "data.train": set(),
    "data.val": set(),
    "data.test": set(),
}
"""part: arguments that it is given later and so need not stand in a config; positional ones by their usual names."""

OUTPUT_ARGUMENTS = {"folder", "save_dir", "dirpath"}
"""Arguments by which loggers and profilers are told where to write, if nothing is said."""

MANY_WORKERS = 32
"""Processes that read ahead which any machine may be asked for; others by its cores."""

WORKERS_A_CORE = 8

PROCESSES_A_CORE = 4
"""Processes of a training on CPUs."""

FLOATS_A_PIXEL = 4
"""Numbers of four bytes that a batch takes in each channel of a pixel at the very least: itself and what is learnt."""


def check_config(config: Config, parts: Sequence[str]) -> None:
    """Check parts of a config before anything is built.

    Args:
        config: the config.
        parts: the parts that a mode builds.

    Raises:
        ConfigurationError: with all that is wrong: values that are missing or out of range, references that lead
            nowhere, classes that cannot be found, arguments they do not take or miss, parts that do not go together.
    """
    errors = find_plain_key_errors(config)
    for part in parts:
        errors += find_part_errors(config, part)
    if "task" in parts:
        errors += _find_mismatched_parts(config)
    if not errors and "data" in parts:
        errors = _find_excesses(config)
    if errors:
        raise ConfigurationError("\n".join(dict.fromkeys(errors)))


def find_plain_key_errors(config: Config) -> list[str]:
    """List what is wrong with the keys that belong to no group."""
    errors = []
    for key, annotation in PLAIN_KEYS.items():
        if key not in config.values:
            continue
        value = config.values[key]
        unresolved = find_unresolved(value, key)
        error = None if unresolved else check_value(key, value, annotation)
        errors += unresolved + ([error] if error else [])
    return errors


def find_part_errors(config: Config, part: str) -> list[str]:
    """List what is wrong with one part by itself."""
    node = config[part]
    if node is None:
        optional = part in ("callbacks", "logger")
        return [] if optional else [f"{part}=null: type {part}={_or(_choice_names(part))}"]
    if not isinstance(node, dict):
        return [f"{part}={node}: type {part}={_or(_choice_names(part))}"]
    if not node and part not in ("callbacks", "logger"):
        return [
            f"{part}={config.choices.get(part)} is empty: its file in conf/{part}/ says nothing"
        ]
    errors = find_unresolved(node, part)
    for key in BUILD_KEYS.get(part, set()) & set(node):
        if key != "spec" and not _is_to_blame(node[key]):
            error = check_value(f"{part}.{key}", node[key], BUILD_ANNOTATIONS[key])
            errors += [error] if error else []
    if part in GROUPS_OF_NODES:
        errors += [
            f"{part}.{key}={format_value(value)}: type null, or an object with its _target_"
            for key, value in node.items()
            if value is not None and not _is_to_blame(value) and not is_node(value)
        ]
    if part == "augment":
        named = [(f"augment.{name}", node.get(name)) for name in ("train", "eval")]
        errors += [
            f"{path}={format_value(value)}: type a list of objects, each with its _target_"
            for path, value in named
            if not _is_to_blame(value)
            and not (isinstance(value, list) and all(map(is_node, value)))
        ]
    if part == "data":
        errors += _find_spec_errors(node.get("spec"))
    return errors + _find_argument_errors(config, node, part)


def build_only_keys(config: Config, part: str) -> set[str]:
    """Return the keys of a part that its constructor does not take: ``build``'s, and those its other keys point at.

    So a data set's own options (``data.root``) lie in its group without the DataModule knowing them.
    """
    node = config.values.get(part)
    if not isinstance(node, dict):
        return set()
    try:
        taken = set(get_parameters(locate(node["_target_"]))[0])
    except (ImportError, AttributeError, ValueError, TypeError, KeyError):
        taken = set()  # what is wrong with it is said elsewhere
    return BUILD_KEYS.get(part, set()) | (set(config.referenced.get(part, ())) - taken)


def _find_spec_errors(spec: Any) -> list[str]:
    """List the values of ``data.spec`` that are of the wrong kind."""
    if not isinstance(spec, Mapping):
        return ["data.spec is missing: what the data is like"]
    errors = []
    for key, annotation in get_type_hints(DataSpec, include_extras=True).items():
        if key not in spec:
            errors.append(f"data.spec.{key} is missing: type +data.spec.{key}=...")
        elif not find_unresolved(spec[key], key) and not _is_to_blame(spec[key]):
            error = check_value(f"data.spec.{key}", spec[key], annotation)
            errors += [error] if error else []
    return errors


def _find_argument_errors(config: Config, node: Any, path: str) -> list[str]:
    """List classes that cannot be found, arguments that they do not take or miss, and values that are none for them."""
    if isinstance(node, list):
        return [
            e
            for index, each in enumerate(node)
            for e in _find_argument_errors(config, each, f"{path}.{index}")
        ]
    if not isinstance(node, dict):
        return []
    aside = build_only_keys(config, path) if "." not in path else set()
    errors = []
    for key, value in node.items():
        if key not in aside:
            errors += _find_argument_errors(config, value, f"{path}.{key}")
    if "_target_" not in node or isinstance(node["_target_"], Unresolved):
        return errors
    try:
        target = locate(str(node["_target_"]))
    except (ImportError, AttributeError, ValueError) as error:
        return [*errors, f"{path}._target_={node['_target_']} cannot be found: {error}"]
    arguments = {
        key: value for key, value in node.items() if key not in HYDRA_KEYS and key not in aside
    }
    return errors + _find_call_errors(
        config, target, arguments, path, is_partial=bool(node.get("_partial_", False))
    )


def _find_call_errors(
    config: Config,
    target: Callable[..., Any],
    arguments: Mapping[str, Any],
    path: str,
    *,
    is_partial: bool,
) -> list[str]:
    try:
        parameters, takes_others = get_parameters(target)
    except (TypeError, ValueError):  # some functions in C do not say
        return []
    name = getattr(target, "__name__", str(target))
    is_writer = path.startswith(("logger.", "trainer.profiler"))
    injected = OUTPUT_ARGUMENTS if is_writer else INJECTED_ARGUMENTS.get(path, set())
    errors = []
    for key, value in arguments.items():
        if key in parameters:
            is_ours = key in injected or _is_to_blame(value)
            error = (
                None
                if is_ours
                else _check_argument(target, parameters[key], value, config.origin(f"{path}.{key}"))
            )
            errors += [error] if error else []
        elif not takes_others:
            takes = ", ".join(sorted(set(parameters) - injected))
            errors.append(
                f"{path}.{key}: {name} takes no such argument; it takes {takes or 'none'}"
            )
    if not is_partial or path in INJECTED_ARGUMENTS:
        needed = {p.name for p in parameters.values() if p.default is p.empty}
        for key in sorted(needed - set(arguments) - injected):
            errors.append(f"{path}.{key} is missing: {name} needs it: type +{path}.{key}=...")
    return errors


def _check_argument(
    target: Callable[..., Any], parameter: inspect.Parameter, value: Any, path: str
) -> str | None:
    annotation = annotation_of(target, parameter)
    if value is None and parameter.default is None:
        return None
    if (
        isinstance(value, dict)
        and "_target_" not in value
        and not fits(value, annotation)
        and _holds_nodes(value)
    ):
        return None  # objects by name
    return check_value(path, value, annotation)


def _holds_nodes(value: Mapping[str, Any]) -> bool:
    return any(isinstance(each, dict) and "_target_" in each for each in value.values())


def _is_to_blame(value: Any) -> bool:
    """Whether a value is one that ``find_unresolved`` speaks of, or that another one stands behind."""
    if isinstance(value, list):
        return any(_is_to_blame(each) for each in value)
    return isinstance(value, Unresolved)


def _find_excesses(config: Config) -> list[str]:
    """List what no machine like this one could do."""
    errors = []
    cores = core_count()
    workers, most = config["data"].get("num_workers"), max(MANY_WORKERS, WORKERS_A_CORE * cores)
    if isinstance(workers, int) and workers > most:
        errors.append(
            f"data.num_workers={workers}: this machine has {cores} cores: type auto, or at most {most}"
        )
    trainer = config.values.get("trainer") or {}
    devices, most = trainer.get("devices"), max(8, PROCESSES_A_CORE * cores)
    if isinstance(devices, int) and devices > most and trainer.get("accelerator") == "cpu":
        errors.append(
            f"trainer.devices={devices}: this machine has {cores} cores: type at most {most}"
        )
    spec, batch = config["data"]["spec"], config["data"].get("batch_size", 1)
    height, width = spec["image_size"]
    needed = FLOATS_A_PIXEL * 4 * batch * spec["channels"] * height * width
    memory = memory_bytes()
    if memory and needed > memory:
        errors.append(
            f"data.spec.image_size=[{height},{width}]: a batch of {batch} such pictures takes {needed / 1e9:,.0f} GB "
            f"or more, this machine has {memory / 1e9:,.0f}: type a smaller size, or a smaller data.batch_size"
        )
    return errors


def _choice_names(group: str, target: str | None = None) -> list[str]:
    options = groups([CONFIG_DIR]).get(group, [])
    return [option.name for option in options if target is None or target in option.target_types]


def _find_mismatched_parts(config: Config) -> list[str]:
    """List data whose targets the task cannot learn from; a head, or a model without one, for another target."""
    nodes = {part: _mapping(config[part]) for part in ("task", "head", "model", "data")}
    spec = _mapping(nodes["data"].get("spec"))
    wanted = nodes["task"].get("target_type")
    found = {"head": nodes["head"].get("target_type"), "model": nodes["model"].get("target_type")}
    if wanted != NO_TARGET:
        found["data"] = spec.get("target_type")
    elif not found["model"]:
        pairs = " or ".join(_choice_names("model", NO_TARGET))
        return [
            f"model={config.choices.get('model')} is one network, but task={config.choices.get('task')} takes a pair "
            f"that makes pictures: type model={pairs} head=none"
        ]
    errors = [
        _explain_mismatch(config, group, target, wanted)
        for group, target in found.items()
        if isinstance(wanted, str) and isinstance(target, str) and target != wanted
    ]
    names = spec.get("class_names")
    if not errors and wanted in ("labels", "masks") and isinstance(names, list) and len(names) < 2:
        errors.append(
            f"task={config.choices.get('task')} tells classes apart, but the data has {len(names)}: "
            f"{', '.join(map(str, names)) or 'none'}. It takes data with two or more"
        )
    return errors


def _mapping(node: Any) -> dict[str, Any]:
    """A node, or an empty one in the place of anything else."""
    return node if isinstance(node, dict) else {}


def _explain_mismatch(config: Config, group: str, found: str, wanted: str) -> str:
    """What does not go together, and what does."""
    names = config.choices
    says = (
        f"{group}={names.get(group)} is for {TARGET_DESCRIPTIONS.get(found, found)}, but task={names.get('task')} "
        f"learns from {TARGET_DESCRIPTIONS.get(wanted, wanted)}"
    )
    fitting = {g: _choice_names(g, target) for g, target in ((group, wanted), ("task", found))}
    typed = [f"{g}={' or '.join(options[:6])}" for g, options in fitting.items() if options]
    typed = ["another model=", *typed] if group == "model" and found == NO_TARGET else typed
    return f"{says}: type {', or '.join(typed)}" if typed else says


def _or(names: Sequence[str]) -> str:
    return " or ".join(names[:6])
