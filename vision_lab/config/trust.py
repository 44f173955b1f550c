"""Allow-list for configs that come with a run folder, whose author we may not know.

The beginning of a name proves nothing: ``torch.nn.modules.module.os.system`` starts with torch,
``torch.hub.load`` runs downloaded code, and a logger writes to the folder in its arguments. A saved
config may therefore use only the classes and functions that ``conf/`` uses, and the layers,
optimizers and transforms of torch and torchvision, each by its exact public name; where one of them
could write or download, only the arguments listed here. Interpolations are allowed if they refer to
a key, or if the same text occurs in ``conf/``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from vision_lab.config.groups import CONFIG_DIR
from vision_lab.core import documents
from vision_lab.core.arguments import format_value

NETWORK_ARGUMENTS = frozenset(
    "num_classes dropout dropout_aux aux_logits transform_input init_weights groups "
    "width_per_group width_mult alpha zero_init_residual replace_stride_with_dilation "
    "stochastic_depth_prob layer_scale drop_rate memory_efficient attention_dropout image_size "
    "input_size "
    "norm_layer".split()
)
"""Arguments of torchvision's networks, without ``weights``, which would download a file."""

TRAINER_ARGUMENTS = frozenset(
    "accelerator devices num_nodes strategy precision max_epochs min_epochs max_steps min_steps "
    "max_time limit_train_batches limit_val_batches limit_test_batches limit_predict_batches "
    "overfit_batches val_check_interval check_val_every_n_epoch num_sanity_val_steps "
    "log_every_n_steps enable_checkpointing enable_progress_bar enable_model_summary "
    "accumulate_grad_batches gradient_clip_val gradient_clip_algorithm deterministic benchmark "
    "inference_mode use_distributed_sampler profiler detect_anomaly barebones plugins "
    "sync_batchnorm reload_dataloaders_every_n_epochs".split()
)
"""Arguments of the Trainer, without the folder it writes to (``default_root_dir``) and without
``logger`` and ``callbacks``, which are groups of their own."""

_TIMM_ARGUMENTS = frozenset(
    "model_name num_classes in_chans drop_rate drop_path_rate global_pool".split()
)

_TRAINER = "vision_lab.training.trainer.Trainer"
_LIGHTNING_TRAINER = "pytorch_lightning.Trainer"  # in the configs of earlier versions
_CSV_LOGGER = "pytorch_lightning.loggers.CSVLogger"
_SIMPLE_PROFILER = "pytorch_lightning.profilers.SimpleProfiler"
_ADVANCED_PROFILER = "pytorch_lightning.profilers.AdvancedProfiler"
_DDP_STRATEGY = "pytorch_lightning.strategies.DDPStrategy"
_FORMATS = "vision_lab.data.formats"

ALLOWED_ARGUMENTS: dict[str, frozenset[str]] = {
    _LIGHTNING_TRAINER: TRAINER_ARGUMENTS,
    _TRAINER: TRAINER_ARGUMENTS | {"threads", "channels_last", "compile", "keep_memory"},
    _DDP_STRATEGY: frozenset({"find_unused_parameters", "gradient_as_bucket_view"}),
    _CSV_LOGGER: frozenset({"name", "version", "prefix", "flush_logs_every_n_steps"}),
    "pytorch_lightning.loggers.MLFlowLogger": frozenset({"experiment_name", "run_name", "prefix"}),
    "pytorch_lightning.loggers.WandbLogger": frozenset({"project", "name", "offline", "prefix"}),
    _SIMPLE_PROFILER: frozenset({"extended", "filename"}),
    _ADVANCED_PROFILER: frozenset({"line_count_restriction", "filename"}),
    "torchvision.datasets.MNIST": frozenset({"train"}),
    "torchvision.datasets.FashionMNIST": frozenset({"train"}),
    "torchvision.datasets.CIFAR10": frozenset({"train"}),
    "torchvision.datasets.CIFAR100": frozenset({"train"}),
    "timm.create_model": _TIMM_ARGUMENTS,
    "torch.utils.data.RandomSampler": frozenset({"num_samples", "replacement"}),
    "vision_lab.callbacks.checkpointing.BestCheckpoint": frozenset(
        {"monitor", "mode", "save_weights_only"}
    ),
    "vision_lab.loggers.tensorboard.ResumableTensorBoardLogger": frozenset(),
}
"""Allowed arguments of targets that could write or download through others. The folders that
loggers, profilers and checkpoints write to are set by ``build.py``, never by a saved config."""

_STRATEGY_PATTERN = r"auto|ddp|ddp_find_unused_parameters_(true|false)|fsdp"
_PROFILER_PATTERN = r"simple|advanced"
_PLAIN_NAME = r"\w[\w.-]*"
_DOWNLOAD_KEY = re.escape("${data.download}")

ALLOWED_VALUES: dict[tuple[str, str], str] = {
    (_LIGHTNING_TRAINER, "strategy"): _STRATEGY_PATTERN,
    (_LIGHTNING_TRAINER, "profiler"): _PROFILER_PATTERN,
    (_TRAINER, "strategy"): _STRATEGY_PATTERN,
    (_TRAINER, "profiler"): _PROFILER_PATTERN,
    (_CSV_LOGGER, "name"): _PLAIN_NAME,
    (_CSV_LOGGER, "version"): _PLAIN_NAME,
    (_SIMPLE_PROFILER, "filename"): _PLAIN_NAME,
    (_ADVANCED_PROFILER, "filename"): _PLAIN_NAME,
    ("timm.create_model", "model_name"): r"\w[\w.]*",  # names with a colon are downloaded from hubs
    (f"{_FORMATS}.torchvision_download.labeled_images", "download"): _DOWNLOAD_KEY,
    (f"{_FORMATS}.torchvision_masks.voc_masks", "download"): _DOWNLOAD_KEY,
    (f"{_FORMATS}.torchvision_masks.oxford_pet_masks", "download"): _DOWNLOAD_KEY,
    (f"{_FORMATS}.torchvision_labels.oxford_pets", "download"): _DOWNLOAD_KEY,
    (f"{_FORMATS}.torchvision_labels.flowers102", "download"): _DOWNLOAD_KEY,
    (f"{_FORMATS}.torchvision_labels.food101", "download"): _DOWNLOAD_KEY,
    ("vision_lab.data.shards.dataset.sharded_samples", "root"): re.escape("${data.root}"),
}
"""Regular expressions of allowed text by (target, argument); nested nodes are checked as well."""

TRUSTED_MODULES = (
    "torch.nn",
    "torch.optim",
    "torch.optim.lr_scheduler",
    "torchmetrics.classification",
    "torchvision.ops",
    "torchvision.transforms.v2",
    "torchvision.models",
)
"""Modules whose public layers, optimizers, transforms and networks are allowed."""

HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_"}

KEY_INTERPOLATION = re.compile(r"\$\{\.*[A-Za-z_][\w.]*\}")

NOT_FROM_RUNS = {"hydra", "mode", "debug", "search"}
"""Groups that are never taken from a run folder."""


def find_untrusted(
    config: Mapping[str, Any],
    *,
    trusted: Sequence[str],
    folders: Sequence[Path] = (),
    typed: Collection[str] = (),
) -> list[str]:
    """Return an error message for everything in a saved config that the allow-list does not cover.

    Args:
        config: the saved config, with interpolations unresolved.
        trusted: packages that are allowed in addition.
        folders: further config folders whose interpolations are allowed.
        typed: dotted keys that the command line overrides.
    """
    errors = []
    for path, value in _walk(config, "", exclude=typed):
        key = path.rpartition(".")[2]
        if isinstance(value, dict) and "_target_" in value:
            errors += _find_target_errors(path, value, trusted, typed)
        elif key != "_target_" and not _is_allowed_text(value, folders):
            errors.append(
                f"{path}={format_value(value)}: this interpolation is from the run folder, and "
                f"conf/ has none like it: type {path}=... yourself"
            )
        elif path == "data.root" and re.match("https?://", str(value)):
            # The servers of other protocols are chosen by the environment of the user.
            errors.append(
                f"data.root={format_value(value)}: this address is from the run folder: type it "
                "yourself to connect to it"
            )
    return errors


def is_allowed_call(
    target: Any,
    arguments: Mapping[str, Any],
    trusted: Sequence[str] = (),
) -> bool:
    """Return whether a saved config may call a class or function.

    Args:
        target: dotted name of the class or function.
        arguments: its arguments.
        trusted: packages that are allowed in addition.
    """
    return not _find_target_errors("", {"_target_": target, **arguments}, trusted, ())


def _find_target_errors(
    path: str, node: Mapping[str, Any], trusted: Sequence[str], typed: Collection[str]
) -> list[str]:
    target = node["_target_"]
    if not isinstance(target, str) or not re.fullmatch(r"[A-Za-z_][\w.]*", target):
        return [
            f"{path}._target_={format_value(target)}: this is from the run folder, and not the "
            "name of a class"
        ]
    if any(target == name or target.startswith(f"{name}.") for name in trusted):
        return []
    if not _is_allowed_target(target):
        package = target.split(".")[0]
        return [
            f"{path}._target_={target}: this is from the run folder and could run any code. If you "
            f"trust its author, type trust=[{package}]"
        ]
    errors = []
    for key, value in node.items():
        is_typed = f"{path}.{key}" in typed and not isinstance(value, dict)
        if key not in HYDRA_KEYS and not is_typed:
            error = _find_argument_error(target, f"{path}.{key}", key, value)
            errors += [error] if error else []
    return errors


def _is_allowed_target(target: str) -> bool:
    in_conf = target in _targets_in_conf() or target in ALLOWED_ARGUMENTS
    return in_conf or _is_public_class(target)


def _find_argument_error(
    target: str,
    path: str,
    key: str,
    value: Any,
) -> str | None:
    allowed = ALLOWED_ARGUMENTS.get(target)  # None: any argument
    if target.startswith("torchvision.models."):
        allowed = NETWORK_ARGUMENTS
    if key == "_args_" or (allowed is not None and key not in allowed):
        name = target.rpartition(".")[2]
        return (
            f"{path}={format_value(value)}: {name} accepts this from the command line only, not "
            f"from a run folder: type {path}=... yourself, or remove it from config.yaml"
        )
    if not _is_allowed_value(target, key, value):
        return (
            f"{path}={format_value(value)}: this is from the run folder: type {path}=... yourself"
        )
    return None


def _is_allowed_value(
    target: str,
    key: str,
    value: Any,
) -> bool:
    pattern = ALLOWED_VALUES.get((target, key))
    if pattern is None or value is None:
        return True
    if isinstance(value, dict) and "_target_" in value:
        return True  # a nested node, checked itself
    if isinstance(value, str) and value in _interpolations_in((CONFIG_DIR,)):
        return True
    return re.fullmatch(pattern, str(value)) is not None


def _is_allowed_text(value: Any, folders: Sequence[Path]) -> bool:
    """Return whether a value contains no interpolation but allowed ones."""
    if not isinstance(value, str) or "${" not in value or KEY_INTERPOLATION.fullmatch(value):
        return True
    return value in _interpolations_in((CONFIG_DIR, *folders))


def _walk(
    node: Any,
    path: str,
    exclude: Collection[str] = (),
) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for everything below a node.

    Values at the keys in ``exclude`` are skipped, because the command line replaces them; mappings
    are not, because overrides are merged into them.
    """
    if isinstance(node, Mapping):
        items: Any = node.items()
    else:
        items = enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        inner = f"{path}.{key}" if path else str(key)
        if inner not in exclude or isinstance(value, dict):
            yield inner, value
            yield from _walk(value, inner, exclude)


@cache
def _targets_in_conf() -> frozenset[str]:
    targets: set[str] = set()
    for file in CONFIG_DIR.glob("*/*.yaml"):
        if file.parent.name not in NOT_FROM_RUNS:
            targets.update(re.findall(r"_target_: *([\w.]+)", file.read_text(encoding="utf-8")))
    return frozenset(targets)


@cache
def _interpolations_in(folders: tuple[Path, ...]) -> frozenset[str]:
    """Return all text with interpolations in the files of some config folders."""
    texts: set[str] = set()
    for folder in folders:
        for file in folder.glob("**/*.yaml"):
            content = yaml.load(file.read_text(encoding="utf-8"), documents.Loader)
            for _, value in _walk(content, ""):
                if isinstance(value, str) and "${" in value:
                    texts.add(value)
    return frozenset(texts)


def _is_public_class(target: str) -> bool:
    """Return whether a name is a layer, optimizer, metric or the like of ``TRUSTED_MODULES``.

    Names that are only imported there, such as ``torch.nn.modules.module.os``, do not count.
    """
    module, _, name = target.rpartition(".")
    if module not in TRUSTED_MODULES or name.startswith("_"):
        return False
    if module == "torchvision.models":
        from torchvision import models

        return name in models.list_models(module=models)
    from importlib import import_module

    from torch import nn, optim
    from torchmetrics import Metric

    bases = {
        "torch.optim": optim.Optimizer,
        "torch.optim.lr_scheduler": optim.lr_scheduler.LRScheduler,
        "torchmetrics.classification": Metric,
    }
    value = getattr(import_module(module), name, None)
    base = bases.get(module, nn.Module)
    if not inspect.isclass(value) or not issubclass(value, base):
        return False
    return value.__module__.startswith(module)
