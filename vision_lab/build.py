"""Instantiation of a validated config: the only module in which models, data and tasks meet.

There is one function for each group; a mode calls those it needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch.utils.deterministic
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins import CheckpointIO, LayerSync, Precision
from pytorch_lightning.profilers import Profiler
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.nn import Parameter
from torch.optim import Optimizer
from torchvision.transforms import v2

from vision_lab.callbacks.pruning import PruneTrial
from vision_lab.config.instantiation import instantiate, locate, name_arguments, name_errors
from vision_lab.config.resolution import Config
from vision_lab.config.trust import find_untrusted
from vision_lab.config.trusted_packages import remembered_packages
from vision_lab.config.validation import (
    BUILD_KEYS,
    NO_TARGET,
    UNSUPERVISED,
    build_only_keys,
    check_config,
)
from vision_lab.core.arguments import ArgumentError
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.protocols import (
    Backbone,
    Dataset,
    FeatureExtractor,
    GanNetworks,
    Head,
    LoadedWeights,
    TrainingData,
)
from vision_lab.core.signatures import get_parameters
from vision_lab.core.spec import DataSpec
from vision_lab.data.module import DataModule, PredictionData
from vision_lab.data.transforms import MultiSampleTransform
from vision_lab.models.class_activation import ClassActivationMaps
from vision_lab.models.feature_extractors import classifier_features
from vision_lab.models.weights import load
from vision_lab.run_folders.folder import Run
from vision_lab.search.settings import RESULT_KEYS
from vision_lab.tasks.base import Task
from vision_lab.tasks.reports.classification import ClassificationReport
from vision_lab.training.checkpoint_io import load_weights
from vision_lab.training.lr_schedules import Schedule, SchedulerFactory
from vision_lab.training.optimizers import can_fuse, keep_layouts
from vision_lab.training.schedulers import follows_metric

MANUAL_OPTIMIZATION_DEFAULTS = {"gradient_clip_val": None, "accumulate_grad_batches": 1}
"""Trainer arguments of tasks that have a setting of the same name: under manual optimization
Lightning neither clips nor accumulates gradients, so the task does."""

TASK_GROUPS = {
    "schedule": "scheduler",
    "optimizer": "optimizer",
    "loss": "loss",
    "diffaugment": "diffaugment",
    "feature_extractor": "features",
}
"""Groups that arguments of the task are built from."""

BOX_TRANSFORMS = (MultiSampleTransform, v2.RandomIoUCrop)
"""Transforms that require boxes."""

PLUGINS = (CheckpointIO, ClusterEnvironment, LayerSync, Precision)
"""Classes that the Trainer accepts as plugins."""


class BuiltNetwork(NamedTuple):
    """Result of ``network``.

    Attributes:
        module: maps normalized images (N, C, H, W) to the outputs of the head.
        spec: spec of the data, with the normalization of the pretrained weights.
        notes: lines about the weights, for the user.
        missing_keys: parameters that the pretrained weights should contain but do not.
    """

    module: nn.Module
    spec: DataSpec
    notes: tuple[str, ...]
    missing_keys: tuple[str, ...]


def spec(config: Config) -> DataSpec:
    """Build the spec of the data, without the targets that the task does not use.

    For a task that learns from images alone, masks and boxes are neither read nor transformed.
    """
    spec = DataSpec.from_config(config["data"]["spec"])
    is_unsupervised = config["task"].get("target_type") in UNSUPERVISED
    if is_unsupervised and spec.target_type in ("masks", "boxes"):
        return replace(spec, target_type="none")
    return spec


def data(
    config: Config,
    spec: DataSpec,
    *,
    label_map: Sequence[int] | None = None,
) -> DataModule:
    """Build the data module.

    Args:
        config: the config.
        spec: the images and targets that the network requires.
        label_map: for each label of the data, the label of the same class in the network; None if
            they are the same.
    """
    augment = config["augment"]
    transforms = {key: _transforms(augment[key], f"augment.{key}") for key in ("train", "eval")}
    _check_transforms(spec, transforms)
    arguments = _constructor_arguments(config, "data")
    source = arguments.pop("source", None)
    make = _partial(arguments, "data")
    with name_errors("data", config["data"]):
        module: DataModule = make(
            spec=spec,
            source=_source(source) if source else None,
            transforms=transforms,
            seed=config["seed"],
            sampler=_sampler(config),
            label_map=label_map,
        )
    return module


def prediction_data(
    config: Config,
    spec: DataSpec,
    dataset: Dataset,
    *,
    keep_size: bool = False,
) -> PredictionData:
    """Build the data module of images to predict.

    Args:
        config: the config; its dataset is not built, and may be absent.
        spec: the images that the network requires.
        dataset: the images, with None as targets.
        keep_size: whether to keep their original sizes.
    """
    if spec.target_type in ("masks", "boxes"):
        config = config.updated({"augment.eval": []})  # predict the whole image, not a crop
    arguments = _constructor_arguments(config, "data")
    for key in ("_target_", "source", "seed"):
        arguments.pop(key, None)
    transforms = {"train": [], "eval": _transforms(config["augment"]["eval"], "augment.eval")}
    return PredictionData(
        dataset,
        keep_size=keep_size,
        spec=spec,
        transforms=transforms,
        seed=config["seed"],
        **arguments,
    )


def _source(node: Mapping[str, Any]) -> Callable[..., Any]:
    """Build the function that creates the dataset of a split; errors in it name their key."""
    make = _partial(dict(node), "data.source")

    def create(*, split: str) -> Any:
        with name_arguments("data.source", node):
            return make(split=split)

    return create


def _sampler(config: Config) -> Callable[..., Iterable[int]]:
    """Build the function that creates the sampler of training; errors in it name their key."""
    arguments = _constructor_arguments(config, "sampler")
    make = _partial(arguments, "sampler")
    accepts_generator = "generator" in _parameter_names(locate(arguments["_target_"]))

    def create(dataset: Dataset, *, generator: Any) -> Iterable[int]:
        with name_errors("sampler", config["sampler"]):
            sampler: Iterable[int] = (
                make(dataset, generator=generator) if accepts_generator else make(dataset)
            )
        return sampler

    return create


def _check_transforms(spec: DataSpec, transforms: Mapping[str, Sequence[Any]]) -> None:
    if spec.target_type == "boxes":
        if transforms["eval"]:
            raise ConfigurationError(
                "augment.eval must be empty for boxes, which are evaluated in pixels of the "
                "original images: type augment.eval=[], or augment=flip"
            )
    elif any(isinstance(transform, BOX_TRANSFORMS) for transform in transforms["train"]):
        raise ConfigurationError(
            f"augment.train contains a transform of boxes, but the data has {spec.target_type}: "
            "type augment=flip"
        )


def drop_datasets(config: Config) -> Config:
    """Return a config without the run's datasets, to predict other images: they may be absent."""
    dataset_keys = build_only_keys(config, "data") - BUILD_KEYS["data"]
    remaining = {}
    for key, value in config["data"].items():
        if key not in dataset_keys:
            remaining[key] = value
    return config.updated({"data": {**remaining, "source": None}})


def network(
    config: Config,
    spec: DataSpec,
    *,
    trained: bool = False,
) -> BuiltNetwork:
    """Build a head on a backbone, or a model that needs no head.

    Args:
        config: the config.
        spec: spec of the data.
        trained: whether the weights of a run will be loaded afterwards; the files of
            ``model.weights`` and ``head.weights`` may then be absent.
    """
    pl.seed_everything(config["seed"], verbose=False)  # for the initial weights
    model = config["model"]
    make = _partial(_constructor_arguments(config, "model"), "model")
    overrides: dict[str, Any] = {}
    if trained and model.get("weights"):
        overrides["weights"] = None
        if model.get("stem") == "auto":
            overrides["stem"] = "imagenet"  # what `auto` means if there are weights
    with name_errors("model", model):
        backbone: Backbone | GanNetworks = make(spec, **overrides)
    if model.get("target_type") == NO_TARGET:
        spec = _with_normalization(spec, (0.5,), (0.5,))  # to [-1, 1]: see ``GanNetworks``
    loaded = backbone.loaded
    if loaded and loaded.mean and loaded.std:
        spec = _with_normalization(spec, loaded.mean, loaded.std)
    head: Head = _partial(_constructor_arguments(config, "head"), "head")
    with name_errors("head", config["head"]):
        module = head(backbone, spec)
    if config["head"].get("weights") and not trained:
        loaded = _load_network_weights(config, head, module, spec)
    if loaded is None:
        return BuiltNetwork(module, spec, (), ())
    notes = [loaded.summary]
    if loaded.mean and loaded.std:
        spec = _with_normalization(spec, loaded.mean, loaded.std)
        notes.append(
            f"images are normalized as for the weights: mean {list(spec.mean)}, "
            f"std {list(spec.std)}"
        )
    return BuiltNetwork(module, spec, tuple(notes), loaded.missing_keys)


def _load_network_weights(
    config: Config, head: Head, module: nn.Module, spec: DataSpec
) -> LoadedWeights:
    """Load ``head.weights`` into backbone and head together."""
    model, head_name = config.choices.get("model"), config.choices.get("head")
    constructor = config["head"].get("torchvision_name") or f"{head_name}_{{model}}"
    return load(
        module,
        config["head"]["weights"],
        key="head.weights",
        constructor=constructor.format(model=model),
        class_layers=_find_class_layers(config, head, spec),
    )


def _find_class_layers(
    config: Config,
    head: Head,
    spec: DataSpec,
) -> set[str]:
    """Return the parameters whose shapes depend on the number of classes.

    They are found by comparing two networks, on the meta device, that differ in it.
    """
    make = _partial(_constructor_arguments(config, "model"), "model")
    shapes = []
    for num_classes in (spec.num_classes + 1, spec.num_classes + 2):
        names = tuple(map(str, range(num_classes)))
        other = replace(spec, num_classes=num_classes, class_names=names)
        with torch.device("meta"):
            module = head(make(other, weights=None), other)
        shapes.append({key: value.shape for key, value in module.state_dict().items()})
    changing = set()
    for key, shape in shapes[0].items():
        if shape != shapes[1][key]:
            changing.add(key)
    return changing


def task(
    config: Config,
    network: BuiltNetwork,
    *,
    data: TrainingData | None = None,
    processes: int = 1,
) -> Task:
    """Build the task.

    Args:
        config: the config.
        network: the network to train or evaluate.
        data: the data to train on; None to set ``training_data`` later, or to predict.
        processes: number of training processes.

    Raises:
        ConfigurationError: if ``task._target_`` does not create a ``Task``.
    """
    parts: dict[str, Any] = {
        "loss": loss(config),
        "feature_extractor": features(config),
        "diffaugment": _diffaugment(config),
    }
    accepted = _parameter_names(task_class(config))
    arguments = _constructor_arguments(config, "task")
    own_task = config["model"].get("task")
    if own_task:
        arguments["_target_"] = own_task["_target_"]
    make = _partial(arguments, "task")
    with name_errors("task", config["task"]), name_task_arguments(config):
        task = make(
            network=network.module,
            spec=network.spec,
            optimizer=optimizer(config, processes=processes),
            schedule=schedule(config),
            seed=config["seed"],
            **{name: part for name, part in parts.items() if name in accepted and part},
        )
    if not isinstance(task, Task):
        raise ConfigurationError(
            f"task._target_ creates a {type(task).__name__}, but must create a subclass of "
            "vision_lab.tasks.base.Task"
        )
    task.training_data = data
    if isinstance(task.report, ClassificationReport):
        task.report.heat_maps = ClassActivationMaps(
            task,
            task.network,
            channels=network.spec.channels,
            image_size=network.spec.image_size,
        )
    return task


def task_class(config: Config) -> Any:
    """Return the class of the task, without building it."""
    return locate(config["task"]["_target_"])


@contextmanager
def name_task_arguments(config: Config) -> Iterator[None]:
    """Name the key, or the group, of an argument of the task that it cannot use.

    Args:
        config: the config.

    Raises:
        ConfigurationError: in place of an ``ArgumentError``.
    """
    try:
        with name_arguments("task", config["task"], except_for=TASK_GROUPS):
            yield
    except ArgumentError as error:
        group = TASK_GROUPS[error.name]
        message = f"{group}={config.choices.get(group)}: type {error.needed}"
        raise ConfigurationError(message) from error


def schedule(config: Config) -> Schedule | SchedulerFactory:
    """Build the schedule by progress, or a factory of a scheduler that takes the optimizer."""
    arguments = _constructor_arguments(config, "scheduler")
    if "optimizer" not in _parameter_names(locate(arguments["_target_"])):
        by_progress: Schedule = instantiate(arguments, "scheduler")
        return by_progress
    interval = config["scheduler"].get("interval", "epoch")
    return SchedulerFactory(_partial(arguments, "scheduler"), interval)


def loss(config: Config) -> Callable[..., Any] | None:
    """Build the loss; None if it is that of the head.

    Raises:
        ConfigurationError: if it cannot be built.
    """
    if config["loss"]:
        built: Callable[..., Any] = instantiate(_constructor_arguments(config, "loss"), "loss")
        return built
    return None


def features(config: Config) -> FeatureExtractor | None:
    """Build the feature extractor; None if there is none.

    Raises:
        ConfigurationError: if its weights cannot be loaded.
    """
    node = config.values.get("features")
    if not node:
        return None
    make = _partial(node, "features")
    accepts_trust = "trust" in get_parameters(locate(node["_target_"]))[0]
    with name_errors("features", node):
        trust = [*config["trust"], *remembered_packages()] if accepts_trust else []
        extractor: FeatureExtractor = make(trust=trust) if accepts_trust else make()
    return extractor


def run_features(folder: str, *, trust: Sequence[str] = ()) -> FeatureExtractor:
    """Build a feature extractor from a classifier that was trained here.

    Args:
        folder: folder of its run.
        trust: packages that its config may use besides those of ``conf/``.

    Raises:
        ConfigurationError: if this is not a finished run, or its config is not trusted.
    """
    run = Run.open(folder, key="features.folder")
    saved = run.resolved
    task: Any = saved.get("task")
    is_classifier = isinstance(task, dict) and task.get("target_type") == "labels"
    if not is_classifier or not run.weights.is_file():
        raise ArgumentError("folder", folder, "the folder of a finished run of task=classify")
    values = {key: saved.get(key) for key in ("model", "head", "seed")}
    errors = find_untrusted(values, trusted=trust)
    if errors:
        lines = [f"features.folder={folder}: {error}" for error in errors]
        raise ConfigurationError("\n".join(lines))
    values |= {"data": {"spec": run.spec}, "trust": list(trust)}
    config = Config(values=values, choices=run.choices)
    check_config(config, ("model", "head"))
    classifier = network(config, DataSpec.from_config(run.spec), trained=True)
    load_weights(classifier.module.load_state_dict, run.weights)
    return classifier_features(classifier.module, classifier.spec, f"run:{folder}")


def _parameter_names(target: Callable[..., Any]) -> set[str]:
    try:
        return set(get_parameters(target)[0])
    except (TypeError, ValueError):  # a class written in C, which is no task
        return set()


def _diffaugment(config: Config) -> list[Any]:
    nodes = config.values.get("diffaugment") or {}
    built = []
    for name, node in nodes.items():
        if node:
            built.append(_build_object(node, f"diffaugment.{name}", Callable))
    return built


def check_training(task: Task, trainer: pl.Trainer) -> None:
    """Check that the task can be trained, and that the settings of the Trainer suit it.

    Raises:
        ConfigurationError: if one does not.
    """
    is_trainable = any(parameter.requires_grad for parameter in task.network.parameters())
    if task.learns_by_gradients and not is_trainable:
        raise ConfigurationError(
            "model.freeze leaves nothing to train: type model.freeze=backbone or null"
        )
    if not task.learns_by_gradients and trainer.world_size > 1:
        raise ConfigurationError(
            "this model is fitted by one process: type trainer.devices=1, or trainer=cpu"
        )
    if not task.learns_by_gradients and trainer.precision != "32-true":
        raise ConfigurationError("this model computes with 32 bits: type trainer.precision=32-true")
    has_end = trainer.max_steps > 0 or (trainer.max_epochs or 0) > 0
    if not has_end and not follows_metric(task.schedule):
        raise ConfigurationError(
            "a schedule by progress requires an end: type trainer.max_epochs=..."
        )
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    averages_weights = any(isinstance(callback, WeightAveraging) for callback in callbacks)
    if isinstance(trainer.strategy, ModelParallelStrategy):
        _check_sharded_training(task, averages_weights=averages_weights)
    if task.automatic_optimization:
        return
    if averages_weights:
        raise ConfigurationError(
            "callbacks that average weights average those of all networks, which is wrong for "
            "several of them: type callbacks=default; GANs average those of the generator "
            "(task.ema_decay)"
        )
    if trainer.max_steps > 0:
        raise ConfigurationError(
            "trainer.max_steps counts the steps of all networks of this task: type "
            "trainer.max_epochs=..., and trainer.limit_train_batches=... for part of an epoch"
        )


def _check_sharded_training(task: Task, *, averages_weights: bool) -> None:
    if not task.automatic_optimization:
        raise ConfigurationError(
            "trainer=fsdp divides a single network between the processes, but this task has "
            "several: type trainer=ddp"
        )
    if averages_weights:
        raise ConfigurationError(
            "callbacks that average weights require whole networks: type callbacks=default, or "
            "trainer=ddp"
        )


def optimizer(config: Config, *, processes: int = 1) -> Callable[..., Optimizer]:
    """Build a function that creates an optimizer for given parameters.

    With ``optimizer.lr_reference_batch_size``, the learning rate is multiplied by the ratio of the
    effective batch size (of all processes and accumulated batches) to that reference (Goyal 2017,
    section 2.1).

    Args:
        config: the config.
        processes: number of training processes.

    Returns:
        A function of the parameters with their names. Keyword arguments override the config's
        settings; an overriding ``lr`` is scaled as well.
    """
    settings = _constructor_arguments(config, "optimizer")
    batches_per_step = processes * config["trainer"]["accumulate_grad_batches"]
    effective_batch_size = config["data"]["batch_size"] * batches_per_step
    reference = config["optimizer"].get("lr_reference_batch_size")

    # Gradients are scaled and clipped by Lightning, which a fused optimizer would do itself.
    is_full_precision = config["trainer"].get("precision", "32-true") == "32-true"

    def make(parameters: Iterable[tuple[str, Parameter]], **overrides: Any) -> Optimizer:
        named = list(parameters)
        arguments = settings | overrides
        if reference:
            arguments["lr"] *= effective_batch_size / reference
        with name_errors("optimizer"):
            create = _partial(arguments, "optimizer")
            tensors = [parameter for _, parameter in named]
            if is_full_precision and can_fuse(create.func, tensors, arguments):  # type: ignore[attr-defined]
                return keep_layouts(create(named, fused=True))
            return create(named)

    return make


def trainer(
    config: Config,
    folder: Path,
    **overrides: Any,
) -> pl.Trainer:
    """Build Lightning's Trainer with the callbacks and loggers of the config.

    Args:
        config: the config.
        folder: the run folder, which becomes ``default_root_dir``.
        overrides: arguments that replace those of the config.

    Raises:
        ConfigurationError: if the machine lacks the requested devices, or settings contradict each
            other.
    """
    settings = config["trainer"]
    arguments: dict[str, Any] = {"default_root_dir": str(folder)}
    if "callbacks" not in overrides:
        arguments["callbacks"] = [*callbacks(config), *pruning(config, folder)]
    if "logger" not in overrides:
        arguments["logger"] = _loggers(config, folder) or False
    arguments |= _trainer_objects(settings, folder)
    for key, value in MANUAL_OPTIMIZATION_DEFAULTS.items():
        if key in config["task"]:
            arguments[key] = value
    # `deterministic` would also fill new memory with NaN, to reveal reads of it: 3 % slower.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    plain = {}
    for key, value in (settings | cluster_size()).items():
        if key not in ("plugins", "profiler"):
            plain[key] = value
    with name_errors("trainer", settings):
        try:
            trainer: pl.Trainer = _partial(plain, "trainer")(**{**arguments, **overrides})
        except (MisconfigurationException, RuntimeError) as error:
            message = f"{error}\nType trainer=auto to use the devices of this machine."
            raise ConfigurationError(message) from error
    if settings.get("sync_batchnorm") and trainer.strategy.root_device.type == "cpu":
        raise ConfigurationError(
            "torch synchronizes batch norm on GPUs only: type trainer.sync_batchnorm=false"
        )
    return trainer


def cluster_size() -> dict[str, Any]:
    """Return the settings of the Trainer by which ``torchrun`` or SLURM has started processes.

    Returns:
        ``devices`` of each machine and ``num_nodes``; empty if the Trainer starts the processes.
    """
    if TorchElasticEnvironment.detect():
        processes, devices = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        return {"devices": devices, "num_nodes": processes // devices}
    processes = int(os.environ.get("SLURM_NTASKS", 1))
    if SLURMEnvironment.detect() and processes > 1:
        machines = int(os.environ.get("SLURM_NNODES", 1))
        return {"devices": processes // machines, "num_nodes": machines}
    return {}


def _trainer_objects(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Build the plugins and the profiler of the Trainer."""
    objects: dict[str, Any] = {}
    plugins = []
    for name, node in (settings.get("plugins") or {}).items():
        if node:
            plugins.append(_build_object(node, f"trainer.plugins.{name}", PLUGINS))
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        if cluster_size():
            # The same command resumes by itself; Lightning's checkpoint for it would stay behind.
            plugins.append(SLURMEnvironment(auto_requeue=False))
        else:  # a job of one task, which starts its processes itself
            plugins.append(LightningEnvironment())
    if plugins:
        objects["plugins"] = plugins
    profiler = settings.get("profiler")
    if isinstance(profiler, dict):
        profiler = _with_output_folder(profiler, folder)
        objects["profiler"] = _build_object(profiler, "trainer.profiler", Profiler)
    elif profiler is not None:
        objects["profiler"] = profiler
    return objects


def callbacks(config: Config, *, only: Sequence[str] | None = None) -> list[pl.Callback]:
    """Build the callbacks.

    Args:
        config: the config.
        only: keys of the callbacks to build; None for all.
    """
    built = []
    for name, node in (config["callbacks"] or {}).items():
        if node and (only is None or name in only):
            built.append(_build_object(node, f"callbacks.{name}", pl.Callback))
    return built


def pruning(config: Config, folder: Path) -> list[pl.Callback]:
    """Build the callback that ends an unpromising trial of a search.

    Args:
        config: the config.
        folder: the run folder, in that of the search.

    Returns:
        The callback in a list; none if this is no trial, or if epochs have no such metric.
    """
    search = config["search"]
    trial, metric = search.get("trial"), search.get("metric")
    if trial is None or not isinstance(metric, str) or metric in RESULT_KEYS:
        return []
    from vision_lab.search.study import TrialReporter  # requires the extra search

    reporter = TrialReporter(folder.parent, trial, search["pruner"])
    return [PruneTrial(reporter.report, metric)]


def _loggers(config: Config, folder: Path) -> list[Any]:
    loggers = []
    for name, node in (config["logger"] or {}).items():
        if node:
            node = _with_output_folder(node, folder)
            loggers.append(_build_object(node, f"logger.{name}", Logger))
    return loggers


def _transforms(nodes: Sequence[Any], path: str) -> list[Any]:
    return [_build_object(node, f"{path}.{index}", Callable) for index, node in enumerate(nodes)]


def _build_object(
    node: Any,
    path: str,
    expected: Any,
) -> Any:
    """Build a node that must be an instance of a class or of one of several classes.

    Raises:
        ConfigurationError: if it is not, or cannot be built.
    """
    try:
        built = instantiate(node, path)
    except MisconfigurationException as error:
        raise ConfigurationError(f"{path} cannot be built: {error}") from error
    if not isinstance(built, expected):
        classes = expected if isinstance(expected, tuple) else (expected,)
        names = " or ".join(class_.__name__ for class_ in classes)
        raise ConfigurationError(f"{path} is a {type(built).__name__}, but must be a {names}")
    return built


def _with_output_folder(node: Any, folder: Path) -> Any:
    """Return the node of a logger or profiler, by default with an output folder in the run folder.

    Nodes of anything else are returned unchanged.
    """
    if not isinstance(node, dict) or "_target_" not in node:
        return node
    parameters, _ = get_parameters(locate(node["_target_"]))
    if "tracking_uri" in parameters:  # MLFlowLogger, which writes to ./mlruns by default
        return {"save_dir": str(folder / "mlruns"), **node}
    folders = {
        "folder": folder,
        "save_dir": folder,
        "dirpath": folder / "profile",
    }
    defaults = {}
    for name, path in folders.items():
        if name in parameters:
            defaults[name] = str(path)
    return {**defaults, **node}


def _with_normalization(
    spec: DataSpec,
    mean: Sequence[float],
    std: Sequence[float],
) -> DataSpec:
    """Set mean and std, averaged if the images have another number of channels."""
    if len(mean) not in (1, spec.channels):
        mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
    return replace(spec, mean=tuple(mean), std=tuple(std))


def _constructor_arguments(config: Config, group: str) -> dict[str, Any]:
    excluded = build_only_keys(config, group)
    arguments = {}
    for key, value in config[group].items():
        if key not in excluded:
            arguments[key] = value
    return arguments


def _partial(node: dict[str, Any], path: str) -> Callable[..., Any]:
    built: Callable[..., Any] = instantiate({**node, "_partial_": True}, path)
    return built
