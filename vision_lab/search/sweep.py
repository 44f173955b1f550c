"""A command with ``-m``: all combinations of values, or a search, in one or several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from vision_lab.config.resolution import find_config_flags
from vision_lab.core.errors import ConfigurationError
from vision_lab.run_folders import sweep as sweep_results
from vision_lab.search import grid, workers
from vision_lab.search.claims import remove_claims
from vision_lab.search.jobs import JobRunner
from vision_lab.search.settings import SearchSettings, SweepSettings, read_settings
from vision_lab.search.space import parse_space

EXTERNAL_PROCESSES = {"TORCHELASTIC_RUN_ID", "SLURM_PROCID"}
"""Variables of processes that torchrun or ``srun`` has started, each of which has these words."""

SEARCH_PACKAGES = ("optuna", "cmaes", "scipy")
"""Packages of the extra ``search``."""


class Plan(NamedTuple):
    """What a sweep does.

    Attributes:
        work: runs jobs until none is left; called in each process.
        describe: describes in one line how far the sweep is.
        report: prints and writes its results.
    """

    work: Callable[[], None]
    describe: Callable[[], str]
    report: Callable[[], None]


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
    arguments = expand_seeds(arguments)
    node: Any = OmegaConf.to_container(config.search, resolve=True)
    settings = read_settings(node)
    runner = JobRunner(Path(config.hydra.sweep.dir), launcher)
    if isinstance(settings, SearchSettings):
        plan = _plan_search(runner, settings, arguments, config)
    else:
        plan = _plan_grid(runner, settings, arguments, validate)
    runner.folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, runner.folder / "multirun.yaml")
    if settings.workers > 1 and runner.is_local:
        workers.run_in_processes(
            plan.work,
            runner.folder,
            count=settings.workers,
            describe=plan.describe,
        )
    else:
        plan.work()
    remove_claims(runner.folder)
    plan.report()


def expand_seeds(arguments: Sequence[str]) -> list[str]:
    """Replace ``seeds=3`` by ``seed=0,1,2``.

    Args:
        arguments: the overrides of a sweep.

    Raises:
        ConfigurationError: if it is not a number, or if there is ``seed=`` as well.
    """
    expanded = []
    keys = [argument.partition("=")[0] for argument in arguments]
    for key, argument in zip(keys, arguments, strict=True):
        if key != "seeds":
            expanded.append(argument)
            continue
        count = argument.partition("=")[2]
        if not count.isdecimal() or int(count) == 0:
            raise ConfigurationError(f"{argument}: type a whole number of 1 or more")
        if "seed" in keys:
            raise ConfigurationError(f"{argument}: type seed= or seeds=, not both")
        expanded.append(f"seed={','.join(map(str, range(int(count))))}")
    return expanded


def _plan_grid(
    runner: JobRunner,
    settings: SweepSettings,
    arguments: Sequence[str],
    validate: Callable[[list[list[str]]], None],
) -> Plan:
    jobs = grid.list_jobs(runner, arguments)
    validate([list(job.overrides) for job in jobs])
    return Plan(
        work=partial(grid.run_grid, runner, jobs, settings),
        describe=partial(grid.describe_progress, jobs),
        report=lambda: None,  # the table of a sweep is printed when all callbacks have ended
    )


def _plan_search(
    runner: JobRunner,
    settings: SearchSettings,
    arguments: Sequence[str],
    config: DictConfig,
) -> Plan:
    values: Any = config.search.get("space") or {}
    space = _import_search(lambda: parse_space(arguments, values))
    from vision_lab.search import results, trials
    from vision_lab.search.study import SearchStudy

    def open_study() -> SearchStudy:
        return SearchStudy(runner.folder, space, settings)

    def report() -> None:
        from vision_lab.search import charts  # imports matplotlib

        study = open_study()
        flags = find_config_flags(config.hydra)
        sweep_results.finish_with(results.print_search(study, flags=flags))
        charts.write_charts(study)

    return Plan(
        work=lambda: trials.run_search(runner, open_study()),
        describe=partial(results.describe_progress, open_study()),
        report=report,
    )


def _import_search(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except ModuleNotFoundError as error:
        if error.name not in SEARCH_PACKAGES:
            raise
        raise ConfigurationError(
            f"a search requires the package {error.name}: type pip install 'vision_lab[search]'"
        ) from error
