"""The only file that instantiates: one function for each part of a config; a mode calls those it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch.utils.deterministic
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins import CheckpointIO, LayerSync, Precision
from pytorch_lightning.profilers import Profiler
from torch import nn
from torch.nn import Parameter
from torch.optim import Optimizer

from vision_lab.config.instantiation import explained, instantiate, locate
from vision_lab.config.resolution import Config
from vision_lab.config.trust import find_untrusted
from vision_lab.config.validation import (
    BUILD_KEYS,
    NO_TARGET,
    build_only_keys,
    check_config,
    find_part_errors,
)
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.protocols import Backbone, GanNetworks, Head, LoadedWeights
from vision_lab.core.signatures import get_parameters
from vision_lab.core.spec import DataSpec
from vision_lab.data.module import DataModule
from vision_lab.models.feature_extractors import (
    FeatureExtractor,
    classifier_features,
    fashion_features,
    inception,
)
from vision_lab.models.weights import load
from vision_lab.runs.folder import Run
from vision_lab.tasks.base import Task
from vision_lab.training.checkpoint_io import load_weights

MANUAL_OPTIMIZATION_DEFAULTS = {"gradient_clip_val": None, "accumulate_grad_batches": 1}
"""What the trainer is told in the place of a setting that a task takes upon itself, by a key of that name: Lightning
neither clips nor accumulates for a task that steps its optimisers itself."""


PLUGINS = (CheckpointIO, ClusterEnvironment, LayerSync, Precision)
"""What Lightning takes as a plugin."""


class BuiltNetwork(NamedTuple):
    """What ``network`` makes.

    Attributes:
        module: (N, C, H, W) normalised -> outputs.
        spec: the data's, with the normalisation that learnt weights bring.
        notes: lines for the user.
        fresh: parameters that learnt weights were expected for and did not bring.
    """

    module: nn.Module
    spec: DataSpec
    notes: tuple[str, ...]
    missing_keys: tuple[str, ...]


def mode(config: Config) -> Callable[[Config, Path], Any]:
    """What to do: called with the config and the folder to write into."""
    errors = find_part_errors(config, "mode")
    if errors:
        raise ConfigurationError("\n".join(errors))
    made: Callable[[Config, Path], Any] = _partial(config["mode"], "mode")
    return made


def spec(config: Config) -> DataSpec:
    """What the data says of itself, as far as the task asks: one that learns from pictures alone asks for no more than
    labels, so that masks and boxes need not be read, nor pictures fitted for them.
    """
    said = DataSpec.from_config(config["data"]["spec"])
    alone = config["task"].get("target_type") == NO_TARGET and said.target_type in (
        "masks",
        "boxes",
    )
    return replace(said, target_type="none") if alone else said


def data(config: Config, spec: DataSpec, *, label_map: Sequence[int] | None = None) -> DataModule:
    """Loaders of the data, fitted to ``spec``; ``label_map`` gives the network's class for each of the data's labels."""
    transforms = {
        name: _transforms(config["augment"][name], f"augment.{name}") for name in ("train", "eval")
    }
    make = _partial(_arguments(config, "data"), "data")
    with explained("data", config["data"]):
        made: DataModule = make(
            spec=spec, transforms=transforms, seed=config["seed"], label_map=label_map
        )
    return made


def drop_datasets(config: Config) -> Config:
    """Return the config for pictures from elsewhere: its own data need not be there."""
    aside = build_only_keys(config, "data") - BUILD_KEYS["data"]
    kept = {key: value for key, value in config["data"].items() if key not in aside}
    return config.updated({"data": {**kept, "train": None, "val": None, "test": None}})


def network(config: Config, spec: DataSpec, *, trained: bool = False) -> BuiltNetwork:
    """A head on a backbone, or a model that needs none.

    Args:
        config: the whole config.
        spec: the pictures it is for.
        trained: its weights will come from a run: those of ``model.weights`` need not be there any more.
    """
    pl.seed_everything(config["seed"], verbose=False)  # the first weights
    model = config["model"]
    make = _partial(_arguments(config, "model"), "model")
    changes: dict[str, Any] = {}
    if trained and model.get("weights"):
        changes = {"weights": None} | (
            {"stem": _resolve_auto_stem(model["stem"])} if "stem" in model else {}
        )
    with explained("model", model):
        backbone: Backbone | GanNetworks = make(spec, **changes)
    if model.get("target_type") == NO_TARGET:
        spec = _normalised(spec, (0.5,), (0.5,))  # to [-1, 1]: see ``Adversarial``
    head: Head = _partial(_arguments(config, "head"), "head")
    with explained("head", config["head"]):
        module = head(backbone, spec)
    loaded = backbone.loaded
    if config["head"].get("weights") and not trained:
        loaded = _load_network_weights(config, head, module, spec)
    if loaded is None:
        return BuiltNetwork(module, spec, (), ())
    notes = [loaded.summary]
    if loaded.mean and loaded.std:
        spec = _normalised(spec, loaded.mean, loaded.std)
        notes.append(
            f"pictures are normalised as the weights want it: mean {list(spec.mean)}, std {list(spec.std)}"
        )
    return BuiltNetwork(module, spec, tuple(notes), loaded.missing_keys)


def _load_network_weights(
    config: Config, head: Head, module: nn.Module, spec: DataSpec
) -> LoadedWeights:
    """Load ``head.weights`` into backbone and head together."""
    published = config["head"].get("torchvision_name") or f"{config.choices.get('head')}_{{model}}"
    make = _partial(_arguments(config, "model"), "model")
    shapes = []
    for more in (1, 2):  # the parameters whose shapes follow the number of classes
        other = replace(
            spec,
            num_classes=spec.num_classes + more,
            class_names=tuple(map(str, range(spec.num_classes + more))),
        )
        with torch.device("meta"):
            made = head(make(other, weights=None), other)
        shapes.append({key: value.shape for key, value in made.state_dict().items()})
    return load(
        module,
        config["head"]["weights"],
        key="head.weights",
        constructor=published.format(model=config.choices.get("model")),
        class_layers={key for key in shapes[0] if shapes[0][key] != shapes[1][key]},
    )


def task(config: Config, network: BuiltNetwork, *, processes: int = 1) -> Task:
    """What is learnt, by so many processes together."""
    settings = _partial(_arguments(config, "task"), "task")
    if "feature_extractor" in config["task"]:
        found = features(config)
        settings = partial(settings, feature_extractor=found, feature_extractor_name=found.name)
    with explained("task", config["task"]):
        made: Task = settings(
            network=network.module,
            spec=network.spec,
            optimizer=optimizer(config, processes=processes),
            schedule=instantiate(config["scheduler"], "scheduler"),
            seed=config["seed"],
        )
    return made


def features(config: Config) -> FeatureExtractor:
    """What ``task.feature_extractor`` names: the space in which pictures are measured.

    Raises:
        ConfigurationError: where it names nothing, or what is not to be had.
    """
    named = config["task"]["feature_extractor"]
    name, _, place = str(named).partition(":")
    if name == "fashion_mini" and not place:
        return fashion_features()
    if name == "inception":
        return inception(place or None)
    if name == "run" and place:
        return _classifier_features(place, trusted=config["trust"])
    raise ConfigurationError(
        f"task.feature_extractor={named}: type fashion_mini, inception, inception:<its file of weights>, "
        "or run:<the folder of a run of task=classify>"
    )


def _classifier_features(folder: str, *, trusted: Sequence[str]) -> FeatureExtractor:
    """Those of a classifier that was trained here."""
    run = Run.open(folder, key="task.feature_extractor", prefix="run:")
    saved = run.resolved
    values = {key: saved.get(key) for key in ("task", "model", "head", "seed")}
    told: Any = values["task"]
    if (
        not isinstance(told, dict)
        or told.get("target_type") != "labels"
        or not run.weights.is_file()
    ):
        raise ConfigurationError(
            f"task.feature_extractor=run:{folder}: this is no finished run of task=classify, which is what can be looked through"
        )
    values = {key: values[key] for key in ("model", "head", "seed")}
    strange = find_untrusted(values, trusted=trusted)
    if strange:
        raise ConfigurationError(
            "\n".join(f"task.feature_extractor=run:{folder}: {line}" for line in strange)
        )
    config = Config(
        values=values | {"data": {"spec": run.spec}, "trust": list(trusted)}, choices=run.choices
    )
    check_config(config, ("model", "head"))
    made = network(config, DataSpec.from_config(run.spec), trained=True)
    load_weights(made.module.load_state_dict, run.weights)
    return classifier_features(made.module, made.spec, f"run:{folder}")


def optimizer(config: Config, *, processes: int = 1) -> Callable[..., Optimizer]:
    """Makes the optimiser of some parameters, by the config's settings and those that it is called with, which win.

    With ``optimizer.lr_reference_batch_size`` the rate grows with the pictures of a step, those of all processes together, in proportion
    to the batch it is meant for (Goyal 2017, section 2.1).
    """
    settings = _arguments(config, "optimizer")
    together = (
        config["data"]["batch_size"] * processes * config["trainer"]["accumulate_grad_batches"]
    )
    meant_for = config["optimizer"].get("lr_reference_batch_size")
    growth = together / meant_for if meant_for else 1

    def make(parameters: Iterable[Parameter], **changes: Any) -> Optimizer:
        changed = settings | changes
        changed["lr"] *= growth
        with explained("optimizer"):
            made: Optimizer = _partial(changed, "optimizer")(parameters)
        return made

    return make


def trainer(config: Config, folder: Path, **changes: Any) -> pl.Trainer:
    """Lightning's trainer with the callbacks and loggers of the config; its ``default_root_dir`` is the run's folder.

    Args:
        config: the whole config.
        folder: the run's folder.
        changes: arguments of the trainer that win over the config's.
    """
    settings = config["trainer"]
    arguments: dict[str, Any] = {"default_root_dir": str(folder)}
    if "callbacks" not in changes:
        arguments["callbacks"] = callbacks(config)
    if "logger" not in changes:
        arguments["logger"] = _loggers(config, folder) or False
    if settings.get("plugins"):
        named = settings["plugins"].items()
        arguments["plugins"] = [
            _object(node, f"trainer.plugins.{name}", PLUGINS) for name, node in named if node
        ]
    if isinstance(settings.get("profiler"), dict):
        arguments["profiler"] = _object(
            _placed(settings["profiler"], folder), "trainer.profiler", Profiler
        )
    # `deterministic` would also fill all new memory with NaN, to show reads of it: 3 % of the time for nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set by a module class
    make = _partial(
        {key: value for key, value in settings.items() if key not in ("plugins", "profiler")},
        "trainer",
    )
    if isinstance(settings.get("profiler"), str):
        arguments["profiler"] = settings["profiler"]
    arguments |= {
        key: value for key, value in MANUAL_OPTIMIZATION_DEFAULTS.items() if key in config["task"]
    } | changes
    with explained("trainer", settings):
        try:
            made: pl.Trainer = make(**arguments)
        except (MisconfigurationException, RuntimeError) as error:
            raise ConfigurationError(
                f"{error}\nType trainer=auto for what this machine has."
            ) from error
    if settings.get("sync_batchnorm") and made.strategy.root_device.type == "cpu":
        raise ConfigurationError(
            "torch synchronises batch norm on GPUs alone: type trainer.sync_batchnorm=false"
        )
    return made


def callbacks(config: Config, *, only: Sequence[str] | None = None) -> list[pl.Callback]:
    """What watches a trainer: all of the config's callbacks, or those of some names."""
    named = (config["callbacks"] or {}).items()
    chosen = [(name, node) for name, node in named if node and (only is None or name in only)]
    return [_object(node, f"callbacks.{name}", pl.Callback) for name, node in chosen]


def _loggers(config: Config, folder: Path) -> list[Any]:
    named = (config["logger"] or {}).items()
    return [
        _object(_placed(node, folder), f"logger.{name}", Logger) for name, node in named if node
    ]


def _transforms(nodes: Sequence[Any], path: str) -> list[Any]:
    """The transforms of ``augment.train`` or ``augment.eval``."""
    return [_object(node, f"{path}.{place}", Callable) for place, node in enumerate(nodes)]


def _object(node: Any, path: str, kind: Any) -> Any:
    """Build a node that must be of some class.

    Raises:
        ConfigurationError: if it is not.
    """
    try:
        made = instantiate(node, path)
    except MisconfigurationException as error:  # of Lightning's own classes
        raise ConfigurationError(f"{path} cannot be built: {error}") from error
    if not isinstance(made, kind):
        names = " or ".join(
            each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,))
        )
        raise ConfigurationError(f"{path} is a {type(made).__name__}, but a {names} is needed")
    return made


def _placed(node: Any, folder: Path) -> Any:
    """A logger or profiler, told to write below the run's folder unless the command line says where."""
    taken = (
        get_parameters(locate(node["_target_"]))[0]
        if isinstance(node, dict) and "_target_" in node
        else {}
    )
    if "tracking_uri" in taken:
        return {"save_dir": str(folder / "mlruns"), **node}
    places = {"folder": folder, "save_dir": folder, "dirpath": folder / "profile"}
    return {**{name: str(place) for name, place in places.items() if name in taken}, **node}


def _resolve_auto_stem(stem: str) -> str:
    """What ``auto`` comes to where there are weights to fit."""
    return "imagenet" if stem == "auto" else stem


def _normalised(spec: DataSpec, mean: Sequence[float], std: Sequence[float]) -> DataSpec:
    if len(mean) not in (
        1,
        spec.channels,
    ):  # a grey picture for weights of colours, or many channels
        mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
    return replace(spec, mean=tuple(mean), std=tuple(std))


def _arguments(config: Config, part: str) -> dict[str, Any]:
    """A part without the keys that are not for its constructor."""
    aside = build_only_keys(config, part)
    return {key: value for key, value in config[part].items() if key not in aside}


def _partial(node: dict[str, Any], path: str) -> Callable[..., Any]:
    made: Callable[..., Any] = instantiate({**node, "_partial_": True}, path)
    return made
