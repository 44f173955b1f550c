"""``mode=evaluate run=...``: measure a trained run again, on any split, or on other data with the same classes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torchvision.io import encode_png

from vision_lab import build
from vision_lab.config.resolution import Config
from vision_lab.config.validation import check_config
from vision_lab.core import console
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import format_path, reject_link, write_file
from vision_lab.modes import reports, subprocesses
from vision_lab.modes.load import adapt_data_spec, load_trained_task
from vision_lab.runs.folder import Run

REQUIRED_GROUPS = (
    "task",
    "model",
    "head",
    "data",
    "augment",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
)


def evaluate(
    config: Config,
    folder: Path,
    *,
    split: Literal["train", "val", "test"],
    tta: Literal["flip"] | None,
) -> None:
    """Measure one split.

    Args:
        config: the run's config, with what the command line changes.
        folder: ``<run>/evaluate``; gets ``<split>.json``, the split's figures, and what the task
            writes of a whole split.
        split: train, val or test.
        tta: None, or ``flip``: the mean of what is said of a picture and of its mirror image.
    """
    if config["run"] is None:
        raise ConfigurationError("mode=evaluate measures a run: type run=<its folder>")
    reject_link(folder)
    console.silence_libraries()
    check_config(config, REQUIRED_GROUPS)
    run = Run.open(config["run"])
    task = load_trained_task(config, run)
    if tta:
        task.enable_flip_tta()
    spec, label_map = adapt_data_spec(task, build.spec(config))
    data = build.data(config, spec, label_map=label_map)
    data.test_split = split
    trainer = build.trainer(
        config, folder, callbacks=build.callbacks(config, only=["progress"]), logger=False
    )
    with subprocesses.subprocesses_for_job(trainer):
        trainer.test(task, datamodule=data, verbose=False)
        data.sync_unreadable()
    if not trainer.is_global_zero:
        return
    now = {f"{split}/{name}": value for name, value in task.scalar_metrics("test").items()}
    result = {
        "metrics": now,
        "per_class": task.per_class("test"),
        "data": config.choices.get("data"),
        "measured_with": task.metric_settings(),
    }
    write_file(folder, f"{split}.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    for name, document in task.export("test", data.image_paths(split)).items():
        write_file(folder, f"{split}_{name}.json", json.dumps(document, ensure_ascii=False) + "\n")
    for name, picture in task.figures("test").items():
        write_file(folder, f"{split}_{name}.png", encode_png(picture).numpy().tobytes())
    reports.metrics(split, task.scalar_metrics("test"), measured_with=task.metric_settings())
    reports.per_class(task.per_class("test"))
    reports.report_annotation_issues(data, folder)
    reports.unreadable(data, folder)
    stored = _stored_result(run)
    then = stored.get("metrics", {})
    alike = stored.get("measured_with", {}) == task.metric_settings()
    if then.keys() == now.keys() and alike and not tta and "data" in config.from_run:
        _report_differences(then, now)
    console.print_line(f"written to {format_path(folder)}")


def _stored_result(run: Run) -> dict[str, Any]:
    """What the run came to by its own account; nothing if that is damaged."""
    try:
        return run.result or {}
    except ConfigurationError as error:
        console.print_warning(f"nothing to compare with: {error}")
        return {}


def _report_differences(then: Mapping[str, float], now: Mapping[str, float]) -> None:
    """Hold the metrics against those the run itself came to."""
    differing = [name for name in now if now[name] != then[name]]
    if not differing:
        console.print_line("identical to the run's own result, to the last bit")
    for name in differing:
        console.print_line(
            f"differs from the run's own result: {name} {then[name]} then, {now[name]} now"
        )
