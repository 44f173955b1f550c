"""Resolvers for interpolations in ``conf/``, such as ``${names_from:...}``.

Does not import torch, so that ``--cfg job --resolve`` takes half a second.
"""

from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import OmegaConf

from vision_lab.config.instantiation import locate
from vision_lab.config.resolution import FileStrings
from vision_lab.config.saved import SAVED_OPTION, SavedRun
from vision_lab.core.errors import ConfigurationError, UserError
from vision_lab.core.files import expand_home
from vision_lab.run_folders.naming import run_folder, safe_dir_name, sweep_folder


def register_resolvers(saved: SavedRun | None = None) -> None:
    """Register the resolvers with OmegaConf.

    Args:
        saved: the run given by ``run=`` or ``resume=``.
    """
    run = saved or SavedRun()

    def choice(group: str) -> str | None:
        from hydra.core.hydra_config import HydraConfig

        chosen = HydraConfig.get().runtime.choices.get(group)
        if chosen == SAVED_OPTION:
            return run.choices.get(group)
        return chosen

    def get_sweep_folder(name: str | None, task: str, now: str) -> str:
        if task == SAVED_OPTION:
            task = run.choices.get("task") or task
        return sweep_folder(name, task, now)

    resolvers: dict[str, Callable[..., Any]] = {
        "choice": choice,
        "count": len,
        "times": _multiply,
        "names_from": _NameReader(),
        "value_from": _ValueReader(),
        "one_of": lambda options, wanted: wanted if wanted in options else options[0],
        "saved_class_names": lambda: FileStrings(run.class_names or ()),
        "run_folder": run_folder,
        "used_folder": _find_used_folder,
        "sweep_folder": get_sweep_folder,
        "folder_name": safe_dir_name,
        "metric_name": lambda monitor: monitor.rpartition("/")[2],
    }
    for name, function in resolvers.items():
        OmegaConf.register_new_resolver(name, function, replace=True)


class _NameReader:
    """Calls functions that read names from files, given by their dotted names.

    Each is called once in a command; before the next one the files may change. Launchers send the
    resolvers to other processes, which a function with ``functools.cache`` does not survive.
    """

    def __init__(self) -> None:
        self.names: dict[tuple[Any, ...], list[str]] = {}

    def __call__(self, reader: str, *arguments: Any) -> FileStrings:
        key = (reader, *arguments)
        if key not in self.names:
            self.names[key] = list(_locate_reader(reader)(*arguments))
        return FileStrings(self.names[key])


class _ValueReader:
    """Calls functions that read a mapping of values from a file, once for each file."""

    def __init__(self) -> None:
        self.mappings: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.errors: dict[tuple[str, str], UserError] = {}

    def __call__(self, reader: str, source: str, key: str) -> Any:
        if (reader, source) in self.errors:
            raise self.errors[reader, source]  # of a server that does not answer: once is enough
        if (reader, source) not in self.mappings:
            try:
                self.mappings[reader, source] = _locate_reader(reader)(source)
            except UserError as error:
                self.errors[reader, source] = error
                raise
        value = self.mappings[reader, source][key]
        is_names = isinstance(value, list) and all(isinstance(name, str) for name in value)
        return FileStrings(value) if is_names else value


def _locate_reader(reader: str) -> Callable[..., Any]:
    try:
        return locate(reader)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"{reader} cannot be found: {error}") from error


def _find_used_folder(run: str | None, runs: Any) -> str | None:
    """Return the folder of the runs that a mode uses, if it is a single one."""
    if run or not isinstance(runs, str) or not expand_home(runs).is_dir():
        return run
    return runs


def _multiply(factor: float, value: float) -> float:
    if not isinstance(factor, int | float) or not isinstance(value, int | float):
        raise ConfigurationError(f"{factor} times {value}: both must be numbers")
    return factor * value
