"""Validation of a resolved config: all errors together, before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_type_hints

from vision_lab.config.groups import CONFIG_DIR, find_groups
from vision_lab.config.instantiation import HYDRA_KEYS, locate
from vision_lab.config.ranges import PLAIN_KEYS, get_annotation
from vision_lab.config.resolution import Config, Unresolved, find_unresolved
from vision_lab.core.arguments import (
    Count,
    check_value,
    fits,
    format_value,
    is_node,
    item_annotation,
)
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.machine import core_count, memory_bytes
from vision_lab.core.signatures import get_parameters
from vision_lab.core.spec import DataSpec

BUILD_KEYS = {
    "data": {"spec"},
    "model": {"target_type", "task"},
    "head": {"target_type", "weights", "torchvision_name"},
    "loss": {"target_type"},
    "sampler": {"target_type"},
    "task": {"target_type"},
    "optimizer": {"lr_reference_batch_size"},
    "scheduler": {"interval"},
}
"""Keys of each group that ``build.py`` uses and no constructor accepts.

``target_type`` must agree: it is the type of the data's targets (in ``data.spec``), of the targets
a head is made for, and of those a task learns from. A model that has it needs no head. ``task`` of
a model names the class of the task that trains it, in place of that in the group ``task``.
"""

GroupTarget = Literal["labels", "masks", "boxes", "none", "images"]
"""Target types of tasks, heads, models, losses and samplers."""

BUILD_ANNOTATIONS: dict[str, Any] = {
    "target_type": GroupTarget,
    "weights": str | None,
    "torchvision_name": str | None,
    "lr_reference_batch_size": Count | None,
    "interval": Literal["step", "epoch"],
    "task": Callable[..., Any],
}
"""Annotations of these keys."""

GROUPS_OF_NODES = ("callbacks", "logger", "diffaugment")
"""Groups whose values are nodes or null; the group itself may be null too."""

OPTIONAL_GROUPS = (*GROUPS_OF_NODES, "loss", "features")
"""Groups that may be null or empty."""

DEFAULT_SAMPLER = "shuffle"
"""The sampler of any data."""

NO_TARGET = "none"
"""Target type of tasks that learn to generate images, and of ``head=none``."""

IMAGES = "images"
"""Target type of tasks that learn to reconstruct images."""

UNSUPERVISED = {
    NO_TARGET: "a generator with a discriminator",
    IMAGES: "an encoder with a decoder",
}
"""Target types of tasks that learn from images alone, for which any data fits, and the models that
they require."""

TARGET_DESCRIPTIONS = {NO_TARGET: "images alone", IMAGES: "the images themselves"}
"""Target types that an error describes by other words."""

INJECTED_ARGUMENTS = {
    "data": {"spec", "transforms", "seed", "label_map", "sampler"},
    "sampler": {"dataset", "data_source", "generator"},
    "model": {"spec"},
    "head": {"backbone", "pair", "spec"},
    "task": {
        "network",
        "spec",
        "optimizer",
        "schedule",
        "seed",
        "loss",
        "diffaugment",
        "feature_extractor",
    },
    "features": {"trust"},
    "optimizer": {"params"},
    "scheduler": {"optimizer"},
    "trainer": {"callbacks", "logger", "default_root_dir"},
    "mode": {"config", "folder"},
    "model.network": {"num_classes"},
    "model.encoder": {"num_classes"},
    "task.report": {"spec"},
    "data.source": {"split"},
    "search.sampler": {"seed", "search_space"},
}
"""Arguments of each node that ``build.py`` passes, so that a config need not contain them."""

OUTPUT_ARGUMENTS = {"folder", "save_dir", "dirpath"}
"""Arguments of loggers and profilers that ``build.py`` sets if a config does not."""

MIN_WORKER_LIMIT = 32
"""Number of DataLoader workers that is allowed on any machine."""

WORKERS_PER_CORE = 8
"""Number of DataLoader workers per core that is allowed on large machines."""

MIN_DEVICE_LIMIT = 8
"""Number of CPU training processes that is allowed on any machine."""

PROCESSES_PER_CORE = 4
"""Number of CPU training processes per core that is allowed on large machines."""

BYTES_PER_VALUE = 16
"""Lower bound for training: a float32 input, one activation and their gradients per pixel."""


def check_config(config: Config, groups: Sequence[str]) -> None:
    """Validate groups of a config before anything is built.

    Args:
        config: the config.
        groups: the groups that a mode builds.

    Raises:
        ConfigurationError: with all errors: missing and invalid values, unresolved interpolations,
            unknown classes and arguments, and groups that do not fit together.
    """
    errors = find_plain_key_errors(config)
    for group in groups:
        errors += find_group_errors(config, group)
    if "task" in groups:
        errors += _find_mismatches(config)
    if not errors and "data" in groups:
        errors = _find_machine_limit_errors(config)
    if errors:
        raise ConfigurationError("\n".join(dict.fromkeys(errors)))


def find_plain_key_errors(config: Config) -> list[str]:
    """Return the errors in keys that belong to no group, such as ``seed``."""
    errors = []
    for key, annotation in PLAIN_KEYS.items():
        if key in config.values:
            errors += _check_resolved(key, config.values[key], annotation)
    return errors


def find_group_errors(config: Config, group: str) -> list[str]:
    """Return the errors in a group, whatever the others are.

    Args:
        config: the config.
        group: name of the group.
    """
    node = config[group]
    if node is None and group in OPTIONAL_GROUPS:
        return []
    if not isinstance(node, dict):
        return [f"{group}={format_value(node)}: type {group}={_join(_option_names(group))}"]
    if not node and group not in OPTIONAL_GROUPS:
        return [f"{group}={config.choices.get(group)}: its file in conf/{group}/ is empty"]
    errors = find_unresolved(node, group)
    for key in BUILD_KEYS.get(group, set()) & set(node):
        if key != "spec" and not _is_unresolved(node[key]):
            errors += _check(f"{group}.{key}", node[key], BUILD_ANNOTATIONS[key])
    if group in GROUPS_OF_NODES:
        errors += _find_node_errors(node, group)
    if group == "augment":
        errors += _find_augment_errors(node)
    if group == "data":
        errors += _find_spec_errors(node.get("spec"))
    return errors + _find_argument_errors(config, node, group)


def build_only_keys(config: Config, group: str) -> set[str]:
    """Return the keys of a group that its constructor does not accept.

    These are the keys for ``build.py`` and those that other keys of the group interpolate. A
    dataset's own options (``data.root``) are thus in its group, unknown to the DataModule.

    Args:
        config: the config.
        group: name of the group.
    """
    node = config.values.get(group)
    if not isinstance(node, dict):
        return set()
    try:
        accepted = set(get_parameters(locate(node["_target_"]))[0])
    except (ImportError, AttributeError, ValueError, TypeError, KeyError):
        accepted = set()  # reported by ``_find_argument_errors``
    return BUILD_KEYS.get(group, set()) | (set(config.referenced.get(group, ())) - accepted)


def _check(
    key: str,
    value: Any,
    annotation: Any,
) -> list[str]:
    items = item_annotation(annotation)
    if isinstance(value, dict) and not is_node(value) and items is not None:
        errors = []
        for name, item in value.items():
            errors += _check(f"{key}.{name}", item, items)
        return errors
    error = check_value(key, value, annotation)
    if error:
        return [error]
    return []


def _check_resolved(
    key: str,
    value: Any,
    annotation: Any,
) -> list[str]:
    return find_unresolved(value, key) or _check(key, value, annotation)


def _find_node_errors(node: Mapping[str, Any], group: str) -> list[str]:
    errors = []
    for key, value in node.items():
        if value is not None and not _is_unresolved(value) and not is_node(value):
            errors.append(
                f"{group}.{key}={format_value(value)}: type null, or an object with its _target_"
            )
    return errors


def _find_augment_errors(node: Mapping[str, Any]) -> list[str]:
    errors = []
    for key in ("train", "eval"):
        value = node.get(key)
        is_list_of_nodes = isinstance(value, list) and all(map(is_node, value))
        if not is_list_of_nodes and not _is_unresolved(value):
            errors.append(
                f"augment.{key}={format_value(value)}: type a list of objects, each with its "
                "_target_"
            )
    return errors


def _find_spec_errors(spec: Any) -> list[str]:
    if not isinstance(spec, Mapping):
        return ["data.spec is missing: it describes the images and targets"]
    errors = []
    for key, annotation in get_type_hints(DataSpec, include_extras=True).items():
        if key not in spec:
            errors.append(f"data.spec.{key} is missing: type +data.spec.{key}=...")
        elif not find_unresolved(spec[key], key) and not _is_unresolved(spec[key]):
            errors += _check(f"data.spec.{key}", spec[key], annotation)
    return errors


def _find_argument_errors(
    config: Config,
    node: Any,
    path: str,
) -> list[str]:
    """Return unknown classes, unknown and missing arguments, and invalid values below a node."""
    errors = []
    if isinstance(node, list):
        for index, item in enumerate(node):
            errors += _find_argument_errors(config, item, f"{path}.{index}")
    if not isinstance(node, dict):
        return errors
    is_group = "." not in path
    excluded = build_only_keys(config, path) if is_group else set()
    arguments = {}
    for key, value in node.items():
        if key not in excluded:
            arguments[key] = value
    for key, value in arguments.items():
        errors += _find_argument_errors(config, value, f"{path}.{key}")
    if "_target_" not in node or isinstance(node["_target_"], Unresolved):
        return errors
    try:
        target = locate(str(node["_target_"]))
    except (ImportError, AttributeError, ValueError) as error:
        return [*errors, f"{path}._target_={node['_target_']} cannot be found: {error}"]
    return errors + _find_call_errors(config, target, arguments, path)


def _find_call_errors(
    config: Config, target: Callable[..., Any], node: Mapping[str, Any], path: str
) -> list[str]:
    """Return unknown and missing arguments and invalid values of a single call."""
    try:
        parameters, accepts_others = get_parameters(target)
    except (TypeError, ValueError):  # functions written in C may have no signature
        return []
    name = getattr(target, "__name__", str(target))
    is_writer = path.startswith(("logger.", "trainer.profiler"))
    injected = OUTPUT_ARGUMENTS if is_writer else INJECTED_ARGUMENTS.get(path, set())
    arguments = {}
    for key, value in node.items():
        if key not in HYDRA_KEYS:
            arguments[key] = value
    errors = []
    for key, value in arguments.items():
        if key in parameters:
            if key not in injected and not _is_unresolved(value):
                origin = config.origin(f"{path}.{key}")
                errors += _check_argument(target, parameters[key], value, origin)
        elif not accepts_others:
            accepted = ", ".join(sorted(set(parameters) - injected)) or "none"
            errors.append(f"{path}.{key}: {name} has no such argument; its arguments: {accepted}")
    is_called_later = bool(node.get("_partial_", False)) and path not in INJECTED_ARGUMENTS
    if not is_called_later:
        required = set()
        for parameter in parameters.values():
            if parameter.default is parameter.empty:
                required.add(parameter.name)
        for key in sorted(required - set(arguments) - injected):
            errors.append(f"{path}.{key} is missing: {name} requires it: type +{path}.{key}=...")
    return errors


def _check_argument(
    target: Callable[..., Any], parameter: inspect.Parameter, value: Any, path: str
) -> list[str]:
    if value is None and parameter.default is None:
        return []
    annotation = get_annotation(target, parameter)
    is_mapping = isinstance(value, dict) and not is_node(value)
    if is_mapping and not fits(value, annotation) and any(map(is_node, value.values())):
        return []  # objects by name, which ``build.py`` converts to a list
    return _check(path, value, annotation)


def _is_unresolved(value: Any) -> bool:
    """Return whether a value, or an item of a list, is unresolved, which is reported elsewhere."""
    if isinstance(value, list):
        return any(map(_is_unresolved, value))
    return isinstance(value, Unresolved)


def _find_machine_limit_errors(config: Config) -> list[str]:
    """Return settings that exceed the cores or the memory of this machine by far."""
    errors = []
    cores = core_count()
    workers = config["data"].get("num_workers")
    limit = max(MIN_WORKER_LIMIT, WORKERS_PER_CORE * cores)
    if isinstance(workers, int) and workers > limit:
        errors.append(
            f"data.num_workers={workers}: this machine has {cores} cores: type auto, or at most "
            f"{limit}"
        )
    trainer = config.values.get("trainer") or {}
    devices = trainer.get("devices")
    limit = max(MIN_DEVICE_LIMIT, PROCESSES_PER_CORE * cores)
    if isinstance(devices, int) and devices > limit and trainer.get("accelerator") == "cpu":
        errors.append(
            f"trainer.devices={devices}: this machine has {cores} cores: type at most {limit}"
        )
    threads = trainer.get("threads")
    limit = max(MIN_DEVICE_LIMIT, PROCESSES_PER_CORE * cores)
    if isinstance(threads, int) and threads > limit:
        errors.append(
            f"trainer.threads={threads}: this machine has {cores} cores: type auto, or at most "
            f"{limit}"
        )
    spec, batch_size = config["data"]["spec"], config["data"].get("batch_size", 1)
    height, width = spec["image_size"]
    required = BYTES_PER_VALUE * batch_size * spec["channels"] * height * width
    memory = memory_bytes()
    if memory and required > memory:
        errors.append(
            f"data.spec.image_size=[{height},{width}]: a batch of {batch_size} such images takes "
            f"at least {required / 1e9:,.0f} GB, this machine has {memory / 1e9:,.0f}: type a "
            "smaller size, or a smaller data.batch_size"
        )
    return errors


def _find_mismatches(config: Config) -> list[str]:
    """Return data, heads and models whose target type differs from the task's."""
    task, head, model, data = (_as_mapping(config[g]) for g in ("task", "head", "model", "data"))
    spec = _as_mapping(data.get("spec"))
    wanted = task.get("target_type")
    target_types = {"head": head.get("target_type"), "model": model.get("target_type")}
    for group in ("loss", "sampler"):
        target_types[group] = _as_mapping(config.values.get(group)).get("target_type")
    if target_types["model"] == wanted:
        if target_types["head"] != NO_TARGET:
            return [f"model={config.choices.get('model')} needs no head: type head=none"]
        del target_types["head"]
    required = UNSUPERVISED.get(str(wanted))
    if required is None:
        target_types["data"] = spec.get("target_type")
    elif not target_types["model"]:
        options = " or ".join(_option_names("model", str(wanted)))
        return [
            f"model={config.choices.get('model')} is a backbone, but "
            f"task={config.choices.get('task')} requires {required}: type "
            f"model={options} head=none"
        ]
    errors = []
    if not config.values.get("loss") and _requires_loss(task):
        options = _join(_option_names("loss", str(wanted)))
        errors.append(f"task={config.choices.get('task')} requires a loss: type loss={options}")
    for group, target_type in target_types.items():
        if not isinstance(wanted, str) or not isinstance(target_type, str):
            continue  # unresolved or invalid, which is reported elsewhere
        if target_type != wanted:
            errors.append(_mismatch_message(config, group, target_type, wanted))
    names = spec.get("class_names")
    if not errors and wanted in ("labels", "masks") and isinstance(names, list) and len(names) < 2:
        errors.append(
            f"task={config.choices.get('task')} requires data with at least two classes, but this "
            f"has {len(names)}: {', '.join(map(str, names)) or 'none'}"
        )
    return errors


def _requires_loss(task: Mapping[str, Any]) -> bool:
    try:
        parameters, _ = get_parameters(locate(task["_target_"]))
    except (ImportError, AttributeError, ValueError, TypeError, KeyError):
        return False  # reported elsewhere
    return "loss" in parameters and parameters["loss"].default is inspect.Parameter.empty


def _mismatch_message(
    config: Config,
    group: str,
    target_type: str,
    wanted: str,
) -> str:
    task = config.choices.get("task")
    message = (
        f"{group}={config.choices.get(group)} is for "
        f"{TARGET_DESCRIPTIONS.get(target_type, target_type)}, but task={task} learns from "
        f"{TARGET_DESCRIPTIONS.get(wanted, wanted)}"
    )
    advice = []
    if group == "model" and target_type in UNSUPERVISED:
        advice.append("another model=")
    if group == "sampler":
        advice.append(f"sampler={DEFAULT_SAMPLER}")
    for other, type_ in ((group, wanted), ("task", target_type)):
        names = _option_names(other, type_)
        if names:
            advice.append(f"{other}={_join(names)}")
    if advice:
        return f"{message}: type {', or '.join(advice)}"
    return message


def _option_names(group: str, target_type: str | None = None) -> list[str]:
    options = find_groups([CONFIG_DIR]).get(group, [])
    if target_type is not None:
        fitting = []
        for option in options:
            if target_type in option.target_types:
                fitting.append(option)
        options = fitting
    return [option.name for option in options]


def _as_mapping(node: Any) -> dict[str, Any]:
    if isinstance(node, dict):
        return node
    return {}


def _join(names: Sequence[str]) -> str:
    return " or ".join(names[:6])
