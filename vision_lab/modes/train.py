"""``mode=train``: fit, then test once with the best checkpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.flop_counter import FlopCounterMode

from vision_lab import build
from vision_lab.callbacks.checkpointing import STATE_KEY as STANDS
from vision_lab.callbacks.checkpointing import find_problem, find_weights_problem
from vision_lab.callbacks.step_logger import logged_step
from vision_lab.config.resolution import Config
from vision_lab.config.validation import check_config
from vision_lab.core import console
from vision_lab.core.documents import dump_yaml
from vision_lab.core.errors import ConfigurationError, DataError, UserError
from vision_lab.core.failures import explain_failure
from vision_lab.core.files import format_path, reject_links, rename_file
from vision_lab.core.signals import Interrupted
from vision_lab.core.text import first_line
from vision_lab.data.module import DataModule
from vision_lab.models.introspection import meta_copy
from vision_lab.modes import finished, reports, subprocesses
from vision_lab.runs import resume
from vision_lab.runs.folder import Run
from vision_lab.runs.lock import lock_run
from vision_lab.tasks.base import Task
from vision_lab.training.checkpoint_io import LOAD_ERRORS, corruption, latest_checkpoint, load, save

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
    "logger",
)


def train(config: Config, folder: Path) -> float:
    """Train and test one run, or what is left of it.

    Args:
        config: the whole config.
        folder: the run's folder; README.md lists what it holds afterwards.

    Returns:
        The monitored metric of the best checkpoint, for sweepers.
    """
    started = time.monotonic()
    console.silence_libraries()
    check_config(config, REQUIRED_GROUPS)
    run = Run(folder)
    if folder.is_dir() and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        reject_links(folder)
    if config["force"] and run.is_initialized and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        with lock_run(run):
            console.print_line(f"the run before now lies in {format_path(run.archive())}")
    trainer = build.trainer(config, folder)
    with subprocesses.subprocesses_for_job(trainer) as watch:
        if not trainer.is_global_zero:
            with subprocesses.report_errors(trainer):
                task, data, _ = _build(config, trainer)
                return _fit(trainer, task, data, _newest(folder, task, damaged=lambda *_: None))
        with lock_run(run):
            if resume.find_progress(run, config.source, force=config["force"]) == "finished":
                return finished.show_result(run, root=config["data"].get("root"))
            run.mark_pending()
            return _train_rank_zero(config, run, trainer, watch, started=started)


def _train_rank_zero(
    config: Config, run: Run, trainer: pl.Trainer, watch: subprocesses.Watch, *, started: float
) -> float:
    """What the first of the run's processes does, and the only one where there is one."""
    try:
        task, data, network = _build(config, trainer)
        if not run.is_initialized:
            run.write_config(
                config=config.source,
                resolved=dump_yaml(config.values),
                overrides=config.overrides,
                choices=dict(config.choices),
                spec=asdict(network.spec),
            )
        data.prepare_data()
        data.setup()
        checkpoint = _newest(run.folder, task, damaged=partial(_quarantine_checkpoint, run.folder))
        fingerprints = data.fingerprints()
        if (
            checkpoint
        ):  # nothing is lost otherwise, and a file that stopped the run may have been mended since
            resume.check_data_unchanged(run, fingerprints)
        run.write_data_fingerprint(
            {**fingerprints, "root": resume.fingerprint_root(config["data"].get("root"))}
        )
        cost = flops(task)
        reports.summary(run, task=task, data=data, flops=cost, notes=network.notes)
        reports.report_annotation_issues(data, run.folder)
        subprocesses.collect_errors(run.folder)  # of a life before this one
        before = _announce_resume(run, checkpoint, trainer) if checkpoint else 0.0
        run.start()
        best = _fit(trainer, task, data, checkpoint)
        seconds = before + time.monotonic() - started
        run.finish(_result(trainer, task, best, seconds=seconds, flops=cost))
    except BaseException as error:
        cause = None
        if not isinstance(error, UserError | Interrupted):
            cause = explain_failure(error, run.folder) or watch.cause()
        if run.is_initialized:
            with suppress(OSError):  # the disk may be full: the error itself matters more
                run.fail(cause or error)
        if cause:
            raise cause from error
        if isinstance(error, Interrupted) and run.is_initialized:
            again_ = (config["name"] or config["resume"]) and not config["force"]
            same = "type the same command again, or" if again_ else "type"
            console.print_line(f"to go on, {same} python -m vision_lab resume={run}")
        raise
    reports.metrics("test", task.scalar_metrics("test"), measured_with=task.metric_settings())
    reports.unreadable(data, run.folder)
    console.print_line(f"the run lies in {run}")
    return best


def _build(config: Config, trainer: pl.Trainer) -> tuple[Task, DataModule, build.BuiltNetwork]:
    spec = build.spec(config)
    data = build.data(config, spec)
    network = build.network(config, spec)
    task = build.task(config, network, processes=trainer.world_size)
    _check_monitors(config, task)
    return task, data, network


def _check_monitors(config: Config, task: Task) -> None:
    """Refuse the name of a metric that will not be there after the first epoch.

    Raises:
        ConfigurationError: saying which there are.
    """
    named = [("task.monitor", task.monitor)]
    for name, node in (config["callbacks"] or {}).items():
        if node and "monitor" in node:
            named.append((config.origin(f"callbacks.{name}.monitor"), node["monitor"]))
    known = [
        f"{split}/{name}"
        for split in ("val", "train")
        for name in sorted(task.measured_names(split))
    ]
    errors = [
        f"{key}={monitor}: there is no such metric: type one of {', '.join(known)}"
        for key, monitor in dict(named).items()
        if monitor not in known
    ]
    if errors:
        raise ConfigurationError("\n".join(errors))


def _newest(folder: Path, task: Task, *, damaged: Callable[[str, str], None]) -> Path | None:
    return latest_checkpoint(folder, damaged, problem=partial(find_problem, task))


def _quarantine_checkpoint(folder: Path, name: str, reason: str) -> None:
    """Keep a damaged checkpoint where no later one takes it for good."""
    aside = Path(name).with_suffix(".damaged").name
    rename_file(folder, name, aside)
    console.print_warning(
        f"{format_path(folder / name)} cannot be used ({reason}); it lies in {aside} now"
    )


def _announce_resume(run: Run, checkpoint: Path, trainer: pl.Trainer) -> float:
    """Seconds that the run has had before."""
    state = load(checkpoint, lazily=True)
    stands = state[STANDS]
    if stands["processes"] != trainer.world_size:
        raise ConfigurationError(
            f"{run} was begun by {stands['processes']} processes, now there are {trainer.world_size}: "
            f"type trainer.devices={stands['processes']}, or another name="
        )
    epoch, batches = stands["stands_at"]
    console.print_line(
        f"goes on      from step {stands['steps_made']} (epoch {epoch + 1}, {batches} batches of it done)"
    )
    changed = resume.describe_environment_changes(run)
    if changed:
        console.print_warning(
            f"not all is as it was when the run was begun, so the last bits may differ: {changed}"
        )
    return float(stands["seconds"])


def _fit(trainer: pl.Trainer, task: Task, data: DataModule, checkpoint: Path | None) -> float:
    """Train, test the best, save its network; the same on every rank."""
    folder = Path(trainer.default_root_dir)
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint)
    except LOAD_ERRORS as error:
        is_restoring = bool(trainer._checkpoint_connector._loaded_checkpoint)
        if not is_restoring or checkpoint is None:
            raise
        raise DataError(
            f"{format_path(checkpoint)} cannot be restored ({first_line(error)}): remove it and type the same command "
            "again, which then goes on from the checkpoint before it; or type force=true to start over"
        ) from error
    best = best_checkpoint(trainer)
    if best is not None and best.best_model_path:
        path = Path(best.best_model_path)
        damaged = corruption(path, partial(find_weights_problem, task))
        if damaged:
            raise DataError(
                f"{format_path(path)} cannot be used ({damaged}): type force=true to start over"
            )
        task.load_state_dict(load(path)["state_dict"])
    if trainer.is_global_zero:  # before the test, which may meet bad files
        save(task.network_state_dict(), folder, "model.pth")
    trainer.test(task, datamodule=data, verbose=False)
    data.sync_unreadable()
    score = best.best_model_score if best is not None else None
    return (
        float(score)
        if score is not None
        else float(trainer.callback_metrics[f"test/{task.monitor.split('/')[-1]}"])
    )


def flops(task: Task) -> int:
    """Floating-point operations of one picture's forward pass, a multiplication and an addition counted as two."""
    network, inputs = task.flop_inputs()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        meta_copy(network)(*inputs)
    return int(counter.get_total_flops())


def best_checkpoint(trainer: pl.Trainer) -> ModelCheckpoint | None:
    """The callback that keeps the best checkpoint; None where there is none."""
    checkpoints = [
        c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor
    ]
    return checkpoints[0] if checkpoints else None


def _result(
    trainer: pl.Trainer, task: Task, score: float, *, seconds: float, flops: int
) -> dict[str, Any]:
    best = best_checkpoint(trainer)
    path = Path(best.best_model_path) if best is not None and best.best_model_path else None
    return {
        "metrics": {f"test/{name}": value for name, value in task.scalar_metrics("test").items()},
        "per_class": task.per_class("test"),
        "monitored": {task.monitor: score},
        "measured_with": task.metric_settings(),
        "seconds": round(seconds, 1),
        "epochs": trainer.current_epoch,
        "steps": logged_step(trainer),
        "parameters": sum(parameter.numel() for parameter in task.network.parameters()),
        "flops": flops,
        "checkpoint": os.path.relpath(path, os.path.realpath(trainer.default_root_dir))
        if path
        else None,
    }
