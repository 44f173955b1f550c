"""The only file that instantiates: one function for each part of a config; a mode calls those it needs."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch.utils.deterministic
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn
from torch.nn import Parameter
from torch.optim import Optimizer

from vision_lab import trust
from vision_lab.checkpoints import load as load_state
from vision_lab.data.module import DataModule
from vision_lab.models.features import Features, garments, inception, of_classifier
from vision_lab.models.weights import load
from vision_lab.parts import OURS, PICTURES_ALONE, check, choices, choices_made, facts
from vision_lab.replay import SAVED
from vision_lab.runs import Run
from vision_lab.tasks.base import Task
from vision_lab.types import Adversarial, Backbone, ConfigurationError, DataSpec, Head, Loaded

ITSELF = {"gradient_clip_val": None, "accumulate_grad_batches": 1}
"""What the trainer is told in the place of a setting that a task takes upon itself, by a key of that name: Lightning
neither clips nor accumulates for a task that steps its optimisers itself."""


NOT_HERE = ("64-true", "64", "16-true", "bf16-true")
"""Precisions for which Lightning converts each part of a batch, which it cannot do with ours."""


class Network(NamedTuple):
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
    fresh: tuple[str, ...]


def mode(config: DictConfig) -> Callable[[DictConfig, Path], Any]:
    """What to do: called with the config and the folder to write into.

    Raises:
        ConfigurationError: where the config of a run's folder would call what is not trusted.
    """
    check(config, ["mode"])
    if config.run or config.resume:
        chosen_here = {group for group, choice in choices_made().items() if choice != SAVED}
        folder = Path(HydraConfig.get().runtime.output_dir)
        strange = trust.strangers(config, but_for=chosen_here, folder=folder)
        if strange:
            raise ConfigurationError("\n".join(strange))
    made: Callable[[DictConfig, Path], Any] = instantiate(config.mode, _partial_=True)
    return made


def spec(config: DictConfig) -> DataSpec:
    """What the data says of itself, as far as the task asks: one that learns from pictures alone asks for no more than
    labels, so that masks and boxes need not be read, nor pictures fitted for them.
    """
    said = DataSpec.from_config(_plain(config.data.spec))
    alone = config.task.get("target") == PICTURES_ALONE and said.target in ("masks", "boxes")
    return replace(said, target="none") if alone else said


def data(config: DictConfig, spec: DataSpec, *, relabel: Sequence[int] | None = None) -> DataModule:
    """Loaders of the data, fitted to ``spec``; ``relabel`` gives the network's class for each of the data's labels."""
    transforms = {
        name: [instantiate(each, _convert_="all") for each in config.augment[name]] for name in ("train", "eval")
    }
    make = instantiate(_without(config.data, *facts(config.data, "data")), _partial_=True, _convert_="all")
    made: DataModule = make(spec=spec, transforms=transforms, seed=config.seed, relabel=relabel)
    return made


def without_sources(config: DictConfig) -> DictConfig:
    """The config for pictures from elsewhere: its own data need not be there."""
    config = config.copy()
    before = facts(config.data, "data")
    for split in ("train", "val", "test"):
        config.data[split] = None
    with open_dict(config.data):
        for key in before - facts(config.data, "data"):  # where they are, and how they are written
            del config.data[key]
    return config


def network(config: DictConfig, spec: DataSpec, *, trained: bool = False) -> Network:
    """A head on a backbone, or a model that needs none.

    Args:
        config: the whole config.
        spec: the pictures it is for.
        trained: its weights will come from a run: those of ``model.weights`` need not be there any more.
    """
    pl.seed_everything(config.seed, verbose=False)  # the first weights
    make = instantiate(_without(config.model, *OURS["model"]), _partial_=True, _convert_="all")
    if trained and config.model.get("weights"):
        stem = {"stem": _stem_with_weights(config.model.stem)} if "stem" in config.model else {}
        backbone: Backbone | Adversarial = make(spec, weights=None, **stem)
    else:
        backbone = make(spec)
    if config.model.get("target") == PICTURES_ALONE:
        spec = _normalised(spec, (0.5,), (0.5,))  # to [-1, 1]: see ``Adversarial``
    head: Head = instantiate(_without(config.head, *facts(config.head, "head")), _partial_=True, _convert_="all")
    module = head(backbone, spec)
    loaded = backbone.loaded
    if config.head.get("weights") and not trained:
        loaded = _whole_weights(config, head, module, spec)
    if loaded is None:
        return Network(module, spec, (), ())
    notes = [loaded.sentence]
    if loaded.mean and loaded.std:
        spec = _normalised(spec, loaded.mean, loaded.std)
        notes.append(f"pictures are normalised as the weights want it: mean {list(spec.mean)}, std {list(spec.std)}")
    return Network(module, spec, tuple(notes), loaded.fresh)


def _whole_weights(config: DictConfig, head: Head, module: nn.Module, spec: DataSpec) -> Loaded:
    """Load ``head.weights`` into backbone and head together."""
    published = config.head.get("published") or f"{choices().get('head')}_{{model}}"
    make = instantiate(config.model, _partial_=True, _convert_="all")
    shapes = []
    for more in (1, 2):  # the parameters whose shapes follow the number of classes
        other = replace(
            spec, num_classes=spec.num_classes + more, class_names=tuple(map(str, range(spec.num_classes + more)))
        )
        with torch.device("meta"):
            made = head(make(other, weights=None), other)
        shapes.append({key: value.shape for key, value in made.state_dict().items()})
    return load(
        module,
        config.head.weights,
        key="head.weights",
        constructor=published.format(model=choices().get("model")),
        class_layers={key for key in shapes[0] if shapes[0][key] != shapes[1][key]},
    )


def task(config: DictConfig, network: Network, *, processes: int = 1) -> Task:
    """What is learnt, by so many processes together."""
    settings = instantiate(_without(config.task, *facts(config.task, "task")), _partial_=True, _convert_="all")
    if "features" in config.task:
        found = features(config)
        settings = partial(settings, features=found, features_name=found.name)
    made: Task = settings(
        network=network.module,
        spec=network.spec,
        optimizer=optimizer(config, processes=processes),
        schedule=instantiate(config.scheduler, _convert_="all"),
        seed=config.seed,
    )
    return made


def features(config: DictConfig) -> Features:
    """What ``task.features`` names: the space in which pictures are measured.

    Raises:
        ConfigurationError: where it names nothing, or what is not to be had.
    """
    name, _, place = str(config.task.features).partition(":")
    if name == "garments" and not place:
        return garments()
    if name == "inception":
        return inception(place or None)
    if name == "run" and place:
        return _features_of(place, trusted=config.trust)
    raise ConfigurationError(
        f"task.features={config.task.features}: type garments, inception, inception:<its file of weights>, "
        "or run:<the folder of a run of task=classify>"
    )


def _features_of(folder: str, *, trusted: Sequence[str]) -> Features:
    """Those of a classifier that was trained here."""
    run = Run.existing(folder, key="task.features", prefix="run:")
    told = OmegaConf.create(run.resolved)
    if told.task.get("target") != "labels" or not run.weights.is_file():
        raise ConfigurationError(
            f"task.features=run:{folder}: this is no finished run of task=classify, which is what can be looked through"
        )
    told = OmegaConf.create({"model": told.model, "head": told.head, "seed": told.seed, "trust": list(trusted)})
    strange = trust.strangers(told, but_for=(), folder=run.folder)
    if strange:
        raise ConfigurationError("\n".join(strange))
    made = network(told, DataSpec.from_config(run.spec), trained=True)
    try:
        made.module.load_state_dict(load_state(run.weights))
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise ConfigurationError(f"{run.weights} does not fit the network of its run: {error}") from error
    return of_classifier(made.module, made.spec, f"run:{folder}")


def optimizer(config: DictConfig, *, processes: int = 1) -> Callable[..., Optimizer]:
    """Makes the optimiser of some parameters, by the config's settings and those that it is called with, which win.

    With ``optim.scale_lr`` the rate grows with the pictures of a step, those of all processes together, in proportion
    to the batch it is meant for (Goyal 2017, section 2.1).
    """
    settings = _without(config.optim, *facts(config.optim, "optim"))
    together = config.data.batch_size * processes * config.trainer.accumulate_grad_batches
    growth = together / config.optim.scale_lr if config.optim.get("scale_lr") else 1

    def make(parameters: Iterable[Parameter], **changes: Any) -> Optimizer:
        changed = settings | changes
        changed["lr"] *= growth
        make: Callable[..., Optimizer] = instantiate(changed, _partial_=True, _convert_="all")
        return make(parameters)

    return make


def trainer(config: DictConfig, folder: Path, **changes: Any) -> pl.Trainer:
    """Lightning's trainer with the callbacks and loggers of the config; its ``default_root_dir`` is the run's folder.

    Args:
        config: the whole config.
        folder: the run's folder.
        changes: arguments of the trainer that win over the config's.
    """
    arguments: dict[str, Any] = {"default_root_dir": str(folder)}
    if "callbacks" not in changes:
        arguments["callbacks"] = callbacks(config)
    if "logger" not in changes:
        arguments["logger"] = [
            instantiate(each, _convert_="all") for each in (config.logger or {}).values() if each
        ] or False
    if config.trainer.get("plugins"):
        arguments["plugins"] = [instantiate(each, _convert_="all") for each in config.trainer.plugins.values() if each]
    if str(config.trainer.get("precision")) in NOT_HERE:
        raise ConfigurationError(
            f"trainer.precision={config.trainer.precision}: batches here are of whole numbers, which are made 32-bit "
            "floats: type 32-true, or 16-mixed or bf16-mixed"
        )
    # `deterministic` would also fill all new memory with NaN, to show reads of it: 3 % of the time for nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set by a module class
    try:
        made: pl.Trainer = instantiate(_without(config.trainer, "plugins"), _partial_=True, _convert_="all")(
            **arguments | {key: value for key, value in ITSELF.items() if key in config.task} | changes
        )
    except MisconfigurationException as error:
        raise ConfigurationError(f"{error}\nType trainer=auto for what this machine has.") from error
    if config.trainer.get("sync_batchnorm") and made.strategy.root_device.type == "cpu":
        raise ConfigurationError("torch synchronises batch norm on GPUs alone: type trainer.sync_batchnorm=false")
    return made


def callbacks(config: DictConfig, *, only: Sequence[str] | None = None) -> list[pl.Callback]:
    """What watches a trainer: all of the config's callbacks, or those of some names."""
    named = (config.callbacks or {}).items()
    return [instantiate(node, _convert_="all") for name, node in named if node and (only is None or name in only)]


def _stem_with_weights(stem: str) -> str:
    """What ``auto`` comes to where there are weights to fit."""
    return "imagenet" if stem == "auto" else stem


def _normalised(spec: DataSpec, mean: Sequence[float], std: Sequence[float]) -> DataSpec:
    if len(mean) not in (1, spec.channels):  # a grey picture for weights of colours, or many channels
        mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
    return replace(spec, mean=tuple(mean), std=tuple(std))


def _without(node: DictConfig, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in _plain(node).items() if key not in keys}


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True)
