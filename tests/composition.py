"""Composition of configs, shortened: most of the time of a short command is spent in it.

Commands in other processes compose as users' do.
"""

from copy import copy, deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import omegaconf.base
import pytest
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.core_plugins.importlib_resources_config_source import (
    ImportlibResourcesConfigSource,
)
from hydra._internal.defaults_list import DefaultsList, Overrides, create_defaults_list
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigSource
from omegaconf import DictConfig

from vision_lab.config.groups import CONFIG_DIR
from vision_lab.config.saved import SAVED_OPTION


def compose_once(patch: pytest.MonkeyPatch) -> None:
    """Keep what Hydra does for each command alike.

    - Each file and each interpolation is parsed once, and the list of sources is not copied.
    - Each choice of groups of the package's ``conf/`` is merged once; the values of a command are
      set in a copy.
    - A command is composed once instead of twice: the first time only looks for ``hydra.mode``.
    """
    _load_files_once(patch)
    _merge_groups_once(patch)
    get_mode = Hydra.get_mode

    def get_mode_once(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        if any(word.startswith(("hydra.mode", "hydra=", "experiment=")) for word in overrides):
            return get_mode(self, config_name, overrides)
        return None  # the default of hydra.mode, which leaves the decision to --multirun

    patch.setattr(Hydra, "get_mode", get_mode_once)
    patch.setattr(omegaconf.base, "parse", cache(omegaconf.base.parse))


def _load_files_once(patch: pytest.MonkeyPatch) -> None:
    files: dict[tuple[str, int, int], Any] = {}
    sources = Plugins.instance().discover(ConfigSource)
    (file_source,) = (source for source in sources if source.scheme() == "file")
    load = file_source.load_config

    def load_once(self: ConfigSource, config_path: str) -> Any:
        file = Path(self.path, self._normalize_file_name(config_path))
        if not file.is_file():
            return load(self, config_path)
        state = file.stat()
        key = (str(file), state.st_mtime_ns, state.st_size)
        if key not in files:
            files[key] = load(self, config_path)
        return deepcopy(files[key])

    patch.setattr(file_source, "load_config", load_once)
    load_packaged = ImportlibResourcesConfigSource.load_config
    packaged: dict[tuple[str, str], Any] = {}

    def load_packaged_once(self: ConfigSource, config_path: str) -> Any:
        key = (self.path, config_path)
        if key not in packaged:
            packaged[key] = load_packaged(self, config_path)
        return deepcopy(packaged[key])

    patch.setattr(ImportlibResourcesConfigSource, "load_config", load_packaged_once)

    def copy_sources(self: CachingConfigRepository, delegate: IConfigRepository) -> None:
        self.delegate = copy(delegate)  # Hydra's own is a deep copy, of its sources too
        self.cache = {}

    patch.setattr(CachingConfigRepository, "__init__", copy_sources)


def _merge_groups_once(patch: pytest.MonkeyPatch) -> None:
    defaults_lists: dict[str, DefaultsList] = {}
    configs: dict[str, DictConfig] = {}
    merge = ConfigLoaderImpl._compose_config_from_defaults_list

    def is_package_only(repo: IConfigRepository) -> bool:
        paths = (source.path for source in repo.get_sources() if source.scheme() == "file")
        return set(paths) == {str(CONFIG_DIR)}

    def list_defaults_once(
        repo: IConfigRepository, config_name: str, overrides_list: list[Override], **settings: Any
    ) -> DefaultsList:
        if not is_package_only(repo):
            return create_defaults_list(repo, config_name, overrides_list, **settings)
        choices = [word for word in overrides_list if repo.group_exists(word.key_or_group)]
        key = str((config_name, [word.input_line for word in choices], settings))
        if key not in defaults_lists:
            defaults_lists[key] = create_defaults_list(repo, config_name, choices, **settings)
        values = Overrides(repo=repo, overrides_list=overrides_list).config_overrides
        return replace(defaults_lists[key], config_overrides=values)

    def merge_once(self: ConfigLoaderImpl, defaults: list[Any], repo: IConfigRepository) -> Any:
        key = str([(default.config_path, default.package) for default in defaults])
        if SAVED_OPTION in key or not is_package_only(repo):
            return merge(self, defaults, repo)
        if key not in configs:
            configs[key] = merge(self, defaults, repo)
        return deepcopy(configs[key])

    patch.setattr(config_loader_impl, "create_defaults_list", list_defaults_once)
    patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", merge_once)
