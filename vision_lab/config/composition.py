"""Composition of a config by Hydra, without running anything."""

from __future__ import annotations

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, flag_override

from vision_lab.config.groups import CONFIG_DIR
from vision_lab.config.overrides import CommandLine
from vision_lab.config.resolution import Config, job_overrides, resolve_config
from vision_lab.config.saved import SAVED_OPTION


def compose_command(command: CommandLine) -> DictConfig:
    """Compose the config of a command, and make Hydra's part of it the current one.

    Args:
        command: the command line of a single run; its resolvers must be registered.

    Returns:
        The config with interpolations unresolved.
    """
    others = command.config_folders[1:]
    search_path = ",".join(f"file://{folder.absolute()}" for folder in others)
    overrides = [*command.overrides, f"hydra.searchpath=[{search_path}]"]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
        composed = compose("config", overrides=overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(composed)
    with flag_override(composed, ["readonly", "struct"], False):
        del composed["hydra"]
    return composed


def resolve_composed(composed: DictConfig) -> Config:
    """Resolve a composed config, with what Hydra knows about it.

    Args:
        composed: the config, with interpolations unresolved.
    """
    hydra_config = HydraConfig.get()
    options = dict(hydra_config.runtime.choices)
    groups = []
    for group in options:
        if "/" not in group and group != "saved":
            groups.append(group)
    interpolations = OmegaConf.create({group: f"${{choice:{group}}}" for group in groups})
    saved_groups = []
    for group in groups:
        if options[group] == SAVED_OPTION:
            saved_groups.append(group)
    return resolve_config(
        composed,
        choices={group: interpolations[group] for group in groups},
        from_run=saved_groups,
        overrides=job_overrides(hydra_config),
    )
