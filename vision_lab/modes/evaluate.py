"""``mode=evaluate run=...``: evaluate a trained run on any split, or on other data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vision_lab import build
from vision_lab.callbacks.image_logger import ExampleCollector
from vision_lab.config.instantiation import name_arguments
from vision_lab.config.resolution import Config
from vision_lab.config.validation import check_config
from vision_lab.core import console
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import format_path, reject_link, write_json
from vision_lab.data.module import DataModule
from vision_lab.modes import reports, subprocesses
from vision_lab.modes.load import adapt_data_spec, load_trained_task
from vision_lab.run_folders.folder import Run
from vision_lab.tasks.base import Task
from vision_lab.viz.images import write_png

REQUIRED_GROUPS = (
    "task model head loss data augment features optimizer scheduler trainer callbacks".split()
)


def evaluate(
    config: Config,
    folder: Path,
    *,
    split: Literal["train", "val", "test"],
    tta: Literal["flip"] | None,
) -> None:
    """Evaluate a run on one split.

    Args:
        config: the run's config, with the overrides of the command line.
        folder: output folder, ``<run>/evaluate``: ``<split>.json``, charts, and the files that the
            task writes for a whole split.
        split: the split to evaluate.
        tta: test-time augmentation: None, or ``flip`` to average the predictions of each image and
            its mirror image.

    Raises:
        ConfigurationError: if the config is invalid, or the data does not fit the network.
        DataError: if the data cannot be read.
    """
    evaluate_run(config, folder, split=split, tta=tta)


def evaluate_run(
    config: Config,
    folder: Path,
    *,
    split: Literal["train", "val", "test"],
    tta: Literal["flip"] | None = None,
) -> dict[str, float] | None:
    """Evaluate a run; see ``evaluate``.

    Returns:
        The metrics by name; None in the processes other than rank 0.
    """
    if config["run"] is None:
        mode = config.choices.get("mode")
        raise ConfigurationError(f"mode={mode} requires a run: type run=<its folder>")
    reject_link(folder)
    console.silence_libraries()
    check_config(config, REQUIRED_GROUPS)
    run = Run.open(config["run"])
    task = load_trained_task(config, run)
    if tta:
        with name_arguments("mode"):
            task.enable_flip_tta()
    spec, label_map = adapt_data_spec(task, build.spec(config))
    data = build.data(config, spec, label_map=label_map)
    data.test_split = split
    task.training_data = data
    callbacks = [*build.callbacks(config, only=["progress_bar"]), ExampleCollector()]
    trainer = build.trainer(config, folder, callbacks=callbacks, logger=False)
    with subprocesses.subprocesses_for_job(trainer):
        with build.name_task_arguments(config):
            trainer.test(task, datamodule=data, verbose=False)
        data.sync_unreadable()
    if not trainer.is_global_zero:
        return None
    metrics = {f"{split}/{name}": value for name, value in task.scalar_metrics("test").items()}
    _write_results(config, folder, split, task, data, metrics)
    reports.print_metrics(split, task.scalar_metrics("test"), settings=task.metric_settings())
    reports.print_per_class(task.report.per_class(task.results["test"]))
    reports.report_annotation_issues(data, folder)
    reports.report_unreadable(data, folder)
    if not tta and "data" in config.from_run:
        _compare_with_training(run, metrics, task.metric_settings())
    console.print_line(f"written to {format_path(folder)}")
    return metrics


def _write_results(
    config: Config,
    folder: Path,
    split: Literal["train", "val", "test"],
    task: Task,
    data: DataModule,
    metrics: Mapping[str, float],
) -> None:
    report, results = task.report, task.results["test"]
    result = {
        "metrics": metrics,
        "per_class": report.per_class(results),
        "data": config.choices.get("data"),
        "measured_with": task.metric_settings(),
    }
    write_json(folder, f"{split}.json", result)
    for name, content in report.export("test", results, data.image_paths(split)).items():
        write_json(folder, f"{split}_{name}.json", content, indent=None)
    for name, figure in report.figures("test", results).items():
        write_png(folder, f"{split}_{name}.png", figure)


def _compare_with_training(
    run: Run, metrics: Mapping[str, float], settings: Mapping[str, Any]
) -> None:
    """Print whether the metrics equal those that the run itself reported after training."""
    try:
        result = run.result or {}
    except ConfigurationError as error:
        console.print_warning(f"no result to compare with: {error}")
        return
    reported = result.get("metrics", {})
    if reported.keys() != metrics.keys() or result.get("measured_with", {}) != settings:
        return
    changed = []
    for name in metrics:
        if metrics[name] != reported[name]:
            changed.append(name)
    if not changed:
        console.print_line("bit-exactly the result reported after training")
    for name in changed:
        console.print_line(
            f"differs from the result reported after training: {name} {reported[name]} then, "
            f"{metrics[name]} now"
        )
