"""What a config may do that came with a run's folder, perhaps from somebody else: nothing that is not listed here.

A name alone says little: ``torch.nn.modules.module.os.system`` starts with torch, ``torch.hub.load`` runs what it
fetches, and a logger writes where its arguments say. So a stored config may name the classes and functions that
``conf/`` names, and the plain layers, optimizers and transforms of torch and torchvision, each by its exact public
name. Where one of them could write or fetch, its arguments are listed too. References are admitted by their text: those
to a key, and those that ``conf/`` itself has.
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

ANY_ARGUMENTS = None

NETWORK_ARGUMENTS = frozenset(
    "num_classes dropout dropout_aux aux_logits transform_input init_weights groups width_per_group width_mult alpha "
    "zero_init_residual replace_stride_with_dilation stochastic_depth_prob layer_scale drop_rate memory_efficient "
    "attention_dropout image_size norm_layer".split()
)
"""Arguments of torchvision's constructors of networks; ``weights`` would fetch."""

TRAINER_ARGUMENTS = frozenset(
    "accelerator devices num_nodes strategy precision max_epochs min_epochs max_steps min_steps max_time "
    "limit_train_batches limit_val_batches limit_test_batches limit_predict_batches overfit_batches val_check_interval "
    "check_val_every_n_epoch num_sanity_val_steps log_every_n_steps enable_checkpointing enable_progress_bar "
    "enable_model_summary accumulate_grad_batches gradient_clip_val gradient_clip_algorithm deterministic benchmark "
    "inference_mode use_distributed_sampler profiler detect_anomaly barebones plugins sync_batchnorm "
    "reload_dataloaders_every_n_epochs".split()
)
"""Without ``default_root_dir``, by which it writes, and ``logger`` and ``callbacks``, which are groups of their own."""

ALLOWED_ARGUMENTS: dict[str, frozenset[str]] = {
    "pytorch_lightning.Trainer": TRAINER_ARGUMENTS,
    "pytorch_lightning.strategies.DDPStrategy": frozenset(
        {"find_unused_parameters", "gradient_as_bucket_view"}
    ),
    "pytorch_lightning.loggers.CSVLogger": frozenset(
        {"name", "version", "prefix", "flush_logs_every_n_steps"}
    ),
    "pytorch_lightning.loggers.MLFlowLogger": frozenset({"experiment_name", "run_name", "prefix"}),
    "pytorch_lightning.loggers.WandbLogger": frozenset({"project", "name", "offline", "prefix"}),
    "pytorch_lightning.profilers.SimpleProfiler": frozenset({"extended", "filename"}),
    "pytorch_lightning.profilers.AdvancedProfiler": frozenset(
        {"line_count_restriction", "filename"}
    ),
    "torchvision.datasets.MNIST": frozenset({"train"}),
    "torchvision.datasets.FashionMNIST": frozenset({"train"}),
    "torchvision.datasets.CIFAR10": frozenset({"train"}),
    "torchvision.datasets.CIFAR100": frozenset({"train"}),
    "timm.create_model": frozenset(
        "model_name num_classes in_chans drop_rate drop_path_rate global_pool".split()
    ),
    "vision_lab.callbacks.checkpointing.BestCheckpoint": frozenset(
        {"monitor", "mode", "save_weights_only"}
    ),
    "vision_lab.loggers.tensorboard.ResumableTensorBoardLogger": frozenset(),
}
"""name: the arguments that it may be called with, for what could write or fetch by others. Where loggers, profilers and
checkpoints write is set by the command (``build.py``) and never read from a stored config."""

ALLOWED_VALUES: dict[tuple[str, str], str] = {
    (
        "pytorch_lightning.Trainer",
        "strategy",
    ): r"auto|ddp|ddp_find_unused_parameters_(true|false)|fsdp",
    ("pytorch_lightning.Trainer", "profiler"): r"simple|advanced",
    ("pytorch_lightning.loggers.CSVLogger", "name"): r"\w[\w.-]*",
    ("pytorch_lightning.loggers.CSVLogger", "version"): r"\w[\w.-]*",
    ("pytorch_lightning.profilers.SimpleProfiler", "filename"): r"\w[\w.-]*",
    ("pytorch_lightning.profilers.AdvancedProfiler", "filename"): r"\w[\w.-]*",
    ("timm.create_model", "model_name"): r"\w[\w.]*",  # with a colon it names a place on a hub
    ("vision_lab.data.formats.torchvision_download.load_or_download", "download"): re.escape(
        "${data.download}"
    ),
    ("vision_lab.data.formats.torchvision_masks.voc_masks", "download"): re.escape(
        "${data.download}"
    ),
    ("vision_lab.data.formats.torchvision_masks.oxford_pet_masks", "download"): re.escape(
        "${data.download}"
    ),
}
"""(name, argument): the texts that it may have; a node of its own is looked at like any other."""

FAMILIES = (
    "torch.nn",
    "torch.optim",
    "torchvision.ops",
    "torchvision.transforms.v2",
    "torchvision.models",
)
"""Modules whose plain layers, optimizers, transforms and networks may be used by their public names."""

HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_"}

KEY_REFERENCE = re.compile(r"\$\{\.*[A-Za-z_][\w.]*\}")

NOT_FROM_RUNS = {"hydra", "mode", "debug"}
"""Groups that no run's folder brings along."""


def find_untrusted(
    config: Mapping[str, Any],
    *,
    trusted: Sequence[str],
    folders: Sequence[Path] = (),
    typed: Collection[str] = (),
) -> list[str]:
    """List what a stored config would do although nobody said that it may.

    Args:
        config: the config as its file has it, references not followed.
        trusted: packages whose code may run all the same.
        folders: further folders of configs whose references are admitted.
        typed: dotted keys that the command line sets itself.

    Returns:
        A line for each, with what to type.
    """
    errors = []
    for path, value in _walk(config, "", but_for=typed):
        if isinstance(value, dict) and "_target_" in value:
            errors += _target_errors(path, value, trusted, typed)
        elif (
            isinstance(value, str) and "${" in value and not _is_admitted_reference(value, folders)
        ):
            key = path.rpartition(".")[2]
            if key != "_target_":  # said above
                errors.append(
                    f"{path}={format_value(value)}: this reference comes with the run's folder, and conf/ has none "
                    f"like it: type {path}=... yourself"
                )
    return errors


def is_admitted(target: Any, arguments: Mapping[str, Any], trusted: Sequence[str] = ()) -> bool:
    """Return whether a stored config may call a name with some arguments."""
    return not _target_errors("", {"_target_": target, **arguments}, trusted, ())


def _target_errors(
    path: str, node: Mapping[str, Any], trusted: Sequence[str], typed: Collection[str]
) -> list[str]:
    target = node["_target_"]
    if not isinstance(target, str) or not re.fullmatch(r"[A-Za-z_][\w.]*", target):
        return [
            f"{path}._target_={format_value(target)}: this comes with the run's folder and is no name of a class"
        ]
    if target.split(".")[0] in trusted or any(
        target == name or target.startswith(f"{name}.") for name in trusted
    ):
        return []
    if (
        target not in _targets_of_conf()
        and target not in ALLOWED_ARGUMENTS
        and not _is_of_a_family(target)
    ):
        return [
            f"{path}._target_={target}: this comes with the run's folder and may run any code. Only if you trust "
            f"whoever made it, type trust=[{target.split('.')[0]}]"
        ]
    allowed = (
        NETWORK_ARGUMENTS
        if target.startswith("torchvision.models.")
        else ALLOWED_ARGUMENTS.get(target)
    )
    errors = []
    for key, value in node.items():
        place = f"{path}.{key}"
        if key in HYDRA_KEYS or (place in typed and not isinstance(value, dict)):
            continue
        if key == "_args_" or (allowed is not ANY_ARGUMENTS and key not in allowed):
            name = target.rpartition(".")[2]
            errors.append(
                f"{place}={format_value(value)}: {name} takes this from the command line alone, not from a run's "
                f"folder: type {place}=... yourself, or remove it from config.yaml"
            )
        elif not _is_allowed_value(target, key, value):
            errors.append(
                f"{place}={format_value(value)}: this comes with the run's folder: type {place}=... yourself"
            )
    return errors


def _is_allowed_value(target: str, key: str, value: Any) -> bool:
    pattern = ALLOWED_VALUES.get((target, key))
    if pattern is None or value is None:
        return True
    if isinstance(value, dict) and "_target_" in value:
        return True  # a node that is looked at by itself
    if isinstance(value, str) and value in _references_of((CONFIG_DIR,)):
        return True
    return re.fullmatch(pattern, str(value)) is not None


def _is_admitted_reference(text: str, folders: Sequence[Path]) -> bool:
    return KEY_REFERENCE.fullmatch(text) is not None or text in _references_of(
        (CONFIG_DIR, *folders)
    )


def _walk(node: Any, path: str, but_for: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """Each (dotted key, value) below a node, mappings and lists too; without those that other values take the place of.

    A mapping is merged with what is typed for it, so that its own values stay.
    """
    items: Any = (
        node.items()
        if isinstance(node, Mapping)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, value in items:
        place = f"{path}.{key}" if path else str(key)
        if place not in but_for or isinstance(value, dict):
            yield place, value
            yield from _walk(value, place, but_for)


@cache
def _targets_of_conf() -> frozenset[str]:
    files = [file for file in CONFIG_DIR.glob("*/*.yaml") if file.parent.name not in NOT_FROM_RUNS]
    names = (re.findall(r"_target_: *([\w.]+)", file.read_text(encoding="utf-8")) for file in files)
    return frozenset(name for found in names for name in found)


@cache
def _references_of(folders: tuple[Path, ...]) -> frozenset[str]:
    """All texts with references in the files of some folders of configs."""
    texts: set[str] = set()
    for folder in folders:
        for file in folder.glob("**/*.yaml"):
            content = yaml.load(file.read_text(encoding="utf-8"), documents.Loader)
            texts |= {
                value for _, value in _walk(content, "") if isinstance(value, str) and "${" in value
            }
    return frozenset(texts)


def _is_of_a_family(target: str) -> bool:
    """Return whether a name is a public layer, optimizer, transform or network, and not only reached through one."""
    module, _, name = target.rpartition(".")
    if module not in FAMILIES or name.startswith("_"):
        return False
    if module == "torchvision.models":
        from torchvision import models

        return name in models.list_models(module=models)
    from importlib import import_module

    from torch import nn, optim

    found = getattr(import_module(module), name, None)
    kind = optim.Optimizer if module == "torch.optim" else nn.Module
    return (
        inspect.isclass(found) and issubclass(found, kind) and found.__module__.startswith(module)
    )
