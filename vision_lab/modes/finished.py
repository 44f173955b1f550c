"""Results of finished runs, shown instead of training again. Does not import torch."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from vision_lab.config.resolution import Config
from vision_lab.core import console
from vision_lab.core.errors import ConfigurationError
from vision_lab.modes import reports
from vision_lab.run_folders import resume
from vision_lab.run_folders.folder import Run


def show_if_finished(config: Config, folder: Path) -> float | None:
    """Show the result of a training command that was completed before.

    Args:
        config: the config of the command.
        folder: its run folder.

    Returns:
        The monitored metric; None if the command still has something to do.

    Raises:
        ConfigurationError: if the folder contains a run with another config.
    """
    if config.choices.get("mode") != "train":
        return None
    return show_progress(config, Run(folder))


def show_progress(config: Config, run: Run) -> float | None:
    """Show the result of a run if nothing is left to do for a command.

    Args:
        config: the config of the command.
        run: its run.

    Returns:
        The monitored metric; None if the command still has something to do.

    Raises:
        ConfigurationError: if the folder contains a run with another config.
    """
    progress = resume.find_progress(
        run,
        config.source,
        force=config["force"],
        extend=config["extend"],
        is_trial=config["search"].get("trial") is not None,
    )
    if progress == "pruned":
        console.print_line(f"{run} was pruned by the search")
        return float(run.status["value"])
    if progress == "finished":
        return show_result(run, root=config["data"].get("root"))
    return None


def show_result(run: Run, *, root: str | None) -> float:
    """Print the result of a finished run.

    Args:
        run: the run.
        root: ``data.root`` of the command, to report a change of the data.

    Returns:
        The monitored metric.

    Raises:
        ConfigurationError: if the result no longer exists.
    """
    result = run.result
    if result is None:
        raise ConfigurationError(
            f"{run} is finished, but its result.json no longer exists: type mode=evaluate "
            f"run={run} to evaluate it again, or force=true to train it again"
        )
    if HydraConfig.get().mode != RunMode.MULTIRUN:  # a sweep prints a table of all its runs
        metrics = {name.partition("/")[2]: value for name, value in result["metrics"].items()}
        reports.print_metrics("test", metrics, settings=result.get("measured_with"))
    console.print_line(f"{run} is already finished; to train it again, type force=true")
    change = resume.describe_root_change(run, root)
    if change:
        console.print_warning(change)
    return float(next(iter(result["monitored"].values())))
