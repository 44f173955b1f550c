"""A run that was finished before: its result is shown, and nothing is trained. No torch here: it takes no time."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from vision_lab.config.resolution import Config
from vision_lab.core import console
from vision_lab.core.errors import ConfigurationError
from vision_lab.modes import reports
from vision_lab.runs import resume
from vision_lab.runs.folder import Run


def show_if_finished(config: Config, folder: Path) -> float | None:
    """Show the stored result of a training command that has nothing left to do.

    Returns:
        The monitored metric; None where there is something to do.

    Raises:
        ConfigurationError: where the folder holds a run of another config.
    """
    run = Run(folder)
    if (
        config.choices.get("mode") != "train"
        or resume.find_progress(run, config.source, force=config["force"]) != "finished"
    ):
        return None
    return show_result(run, root=config["data"].get("root"))


def show_result(run: Run, *, root: str | None) -> float:
    """Print the result of a finished run.

    Args:
        run: the run.
        root: ``data.root`` as it is typed now.

    Returns:
        The monitored metric.

    Raises:
        ConfigurationError: if the result is not there any more.
    """
    found = run.result
    if found is None:
        raise ConfigurationError(
            f"{run} was finished, but its result.json is gone: type mode=evaluate run={run} to measure it again, or "
            "force=true to train it anew"
        )
    if HydraConfig.get().mode != RunMode.MULTIRUN:  # a sweep ends with a table of all
        reports.metrics(
            "test",
            {name.partition("/")[2]: value for name, value in found["metrics"].items()},
            measured_with=found.get("measured_with"),
        )
    console.print_line(f"{run} was finished before; to train it anew, type force=true")
    changed = resume.describe_root_change(run, root)
    if changed:
        console.print_warning(changed)
    return float(next(iter(found["monitored"].values())))
