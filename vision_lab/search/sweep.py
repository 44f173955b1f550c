"""A command with ``-m``: all combinations of values, or a search, in one or several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from vision_lab.core.errors import ConfigurationError
from vision_lab.run_folders import sweep as sweep_results
from vision_lab.search import grid, workers
from vision_lab.search.claims import remove_claims
from vision_lab.search.jobs import JobRunner
from vision_lab.search.settings import SearchSettings, SweepSettings, read_settings
from vision_lab.search.space import SearchSpace, parse_space

EXTERNAL_PROCESSES = {"TORCHELASTIC_RUN_ID", "SLURM_PROCID"}
"""Variables of processes that torchrun or ``srun`` has started, each of which has these words."""

SEARCH_PACKAGES = ("optuna", "cmaes", "scipy")
"""Packages of the extra ``search``."""


def run_sweep(
    config: DictConfig,
    launcher: Launcher,
    arguments: Sequence[str],
    *,
    validate: Callable[[list[list[str]]], None],
) -> None:
    """Run the jobs of a command; their results are in their folders.

    Args:
        config: the composed config, without the values of jobs.
        launcher: Hydra's launcher.
        arguments: the overrides of the command line.
        validate: composes the configs of jobs, to find errors before the first one is run.

    Raises:
        ConfigurationError: if the settings of the sweep are invalid.
    """
    if EXTERNAL_PROCESSES & set(os.environ) and os.environ.get("SLURM_NTASKS") != "1":
        raise ConfigurationError(
            "torchrun and srun start the processes of one training: type the command without -m; "
            "or without them, and hydra/launcher=submitit_slurm for a cluster"
        )
    node: Any = OmegaConf.to_container(config.search, resolve=True)
    settings = read_settings(node)
    runner = JobRunner(Path(config.hydra.sweep.dir), launcher)
    work = _prepare(runner, settings, node, arguments, validate)
    runner.folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, runner.folder / "multirun.yaml")
    if settings.workers > 1 and runner.is_local:
        workers.run_in_processes(work, runner.folder, count=settings.workers)
    else:
        work()
    remove_claims(runner.folder)
    if isinstance(settings, SearchSettings):
        _report(runner.folder, settings, parse_space(arguments, node["space"]))


def _prepare(
    runner: JobRunner,
    settings: SweepSettings,
    node: dict[str, Any],
    arguments: Sequence[str],
    validate: Callable[[list[list[str]]], None],
) -> Callable[[], None]:
    """Return the function that works on the jobs, in each process."""
    if not isinstance(settings, SearchSettings):
        jobs = grid.list_jobs(runner, arguments)
        validate([list(job.overrides) for job in jobs])
        return partial(grid.run_grid, runner, jobs, settings)
    space = _import_search(lambda: parse_space(arguments, node.get("space") or {}))
    from vision_lab.search import trials
    from vision_lab.search.study import SearchStudy

    def search() -> None:
        trials.run_search(runner, SearchStudy(runner.folder, space, settings))

    SearchStudy(runner.folder, space, settings)  # reports errors before processes are started
    return search


def _report(
    folder: Path,
    settings: SearchSettings,
    space: SearchSpace,
) -> None:
    from vision_lab.search.charts import write_charts
    from vision_lab.search.results import print_search
    from vision_lab.search.study import SearchStudy

    study = SearchStudy(folder, space, settings)
    sweep_results.finish_with(print_search(study))
    write_charts(study)


def _import_search(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except ModuleNotFoundError as error:
        if error.name not in SEARCH_PACKAGES:
            raise
        raise ConfigurationError(
            f"a search requires the package {error.name}: type pip install 'vision_lab[search]'"
        ) from error
