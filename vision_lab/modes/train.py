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
from vision_lab.callbacks.checkpointing import (
    STATE_KEY,
    ResumeCheckpoint,
    find_problem,
    find_weights_problem,
)
from vision_lab.callbacks.hparams_logger import HparamsLogger
from vision_lab.callbacks.pruning import PruneTrial
from vision_lab.callbacks.sample_losses import SampleLosses
from vision_lab.callbacks.step_logger import logged_step
from vision_lab.config.resolution import Config
from vision_lab.config.validation import check_config
from vision_lab.core import console
from vision_lab.core.allocator import return_freed_memory
from vision_lab.core.documents import dump_yaml
from vision_lab.core.errors import ConfigurationError, DataError, UserError
from vision_lab.core.failures import explain_failure
from vision_lab.core.files import delete_file, format_path, reject_links, rename_file
from vision_lab.core.machine import peak_memory_bytes, reset_peak_memory
from vision_lab.core.signals import Interrupted
from vision_lab.core.text import first_line
from vision_lab.data.module import DataModule
from vision_lab.models.introspection import meta_copy
from vision_lab.modes import finished, reports, subprocesses
from vision_lab.run_folders import resume
from vision_lab.run_folders.folder import Run
from vision_lab.run_folders.lock import lock_run
from vision_lab.tasks.base import Task
from vision_lab.training.checkpoint_io import LOAD_ERRORS, corruption, latest_checkpoint, load, save
from vision_lab.training.sharding import load_state_dict

REQUIRED_GROUPS = (
    "task model head loss data sampler augment diffaugment features optimizer scheduler trainer "
    "callbacks logger"
).split()


def train(config: Config, folder: Path) -> float:
    """Train and test a run, or complete an interrupted one.

    Args:
        config: the config.
        folder: the run folder; the README lists the files it contains afterwards.

    Returns:
        The monitored metric of the best checkpoint, for sweepers.

    Raises:
        ConfigurationError: if the config is invalid, or the folder contains another run.
        DataError: if the data cannot be read.
    """
    started = time.monotonic()
    return_freed_memory()  # of an earlier run of this process, whose peak memory does not count
    reset_peak_memory()
    console.silence_libraries()
    check_config(config, REQUIRED_GROUPS)
    if "sampler" in config["search"] and config["search"]["trial"] is None:
        raise ConfigurationError("a search is a command with -m: type python -m vision_lab -m ...")
    if config["seeds"]:
        raise ConfigurationError("seeds= trains several runs: type python -m vision_lab -m ...")
    if build.cluster_size() and not (config["name"] or config["resume"]):
        raise ConfigurationError(
            "processes that torchrun or SLURM has started need a common folder: type name=..."
        )
    run = Run(folder)
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        _prepare_folder(run, force=config["force"])
    trainer = build.trainer(config, folder)
    with subprocesses.subprocesses_for_job(trainer) as watch:
        if not trainer.is_global_zero:
            with subprocesses.report_errors(trainer):
                return _train_other_rank(config, trainer)
        with lock_run(run):
            score = finished.show_progress(config, run)
            if score is not None:  # by another command, while this one waited for the lock
                return score
            run.mark_pending()
            try:
                return _train_rank_zero(config, run, trainer, started=started)
            except BaseException as error:
                _handle_failure(config, run, watch, error)
                raise


def _prepare_folder(run: Run, *, force: bool) -> None:
    if run.folder.is_dir():
        reject_links(run.folder)
    if force and run.is_initialized:
        with lock_run(run):
            archived = format_path(run.archive())
            console.print_line(f"the previous run was moved to {archived}")


def _train_other_rank(config: Config, trainer: pl.Trainer) -> float:
    task, data, _ = _build(config, trainer)
    checkpoint = _find_checkpoint(Path(trainer.default_root_dir), task, on_corrupt=lambda *_: None)
    with build.name_task_arguments(config):
        return _fit(trainer, task, data, checkpoint)


def _train_rank_zero(
    config: Config,
    run: Run,
    trainer: pl.Trainer,
    *,
    started: float,
) -> float:
    """Train on rank 0, which also writes the files of the run and prints."""
    task, data, network = _build(config, trainer)
    if not run.is_initialized or config["extend"]:
        run.write_config(
            config=config.source,
            resolved=dump_yaml(config.values),
            overrides=config.overrides,
            choices=dict(config.choices),
            spec=asdict(network.spec),
        )
    _show_settings(trainer, config, run)
    data.prepare_data()
    data.setup()
    quarantine = partial(_quarantine_checkpoint, run.folder)
    checkpoint = _find_checkpoint(run.folder, task, on_corrupt=quarantine)
    if config["extend"] and checkpoint is None:
        raise ConfigurationError(f"{run} has no checkpoint to extend it from: they were deleted")
    _record_fingerprints(config, run, data, resumed=checkpoint is not None)
    flops = count_flops(task)
    reports.print_summary(
        run,
        task=task,
        data=data,
        flops=flops,
        notes=network.notes,
    )
    reports.report_annotation_issues(data, run.folder)
    subprocesses.collect_errors(run.folder)  # delete those of an interrupted command
    earlier_seconds = _announce_resume(run, checkpoint, trainer) if checkpoint else 0.0
    run.start()
    with build.name_task_arguments(config):
        score = _fit(trainer, task, data, checkpoint)
    pruning = _find_pruning(trainer)
    if pruning:
        run.prune(trainer.current_epoch, score)
        console.print_line(f"ended early by the search, after {trainer.current_epoch} epochs")
        return score
    seconds = earlier_seconds + time.monotonic() - started - _seconds_of_losses(trainer)
    run.finish(_summarize(run, trainer, task, score, seconds=seconds, flops=flops))
    _delete_checkpoints(trainer, run.folder)
    reports.print_metrics("test", task.scalar_metrics("test"), settings=task.metric_settings())
    reports.report_unreadable(data, run.folder)
    console.print_line(f"written to {run}")
    return score


def _seconds_of_losses(trainer: pl.Trainer) -> float:
    """Return the duration of the pass that lists the loss of each image."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return sum(callback.seconds for callback in callbacks if isinstance(callback, SampleLosses))


def _show_settings(trainer: pl.Trainer, config: Config, run: Run) -> None:
    """Let the loggers show what was typed when the run was started, such as values of a sweep."""
    values, choices = resume.flatten_keys(config.values), run.choices
    settings = {}
    for override in run.overrides:
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        if resume.is_ignored(key) or "/" in key:
            continue
        settings[key] = choices.get(key, values.get(key))
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, HparamsLogger):
            callback.show(settings)


def _record_fingerprints(
    config: Config,
    run: Run,
    data: DataModule,
    *,
    resumed: bool,
) -> None:
    fingerprints = data.fingerprints()
    if resumed:  # otherwise nothing is lost, and an invalid file may have been fixed meanwhile
        resume.check_data_unchanged(run, fingerprints)
    root = resume.fingerprint_root(config["data"].get("root"))
    run.write_data_fingerprint({**fingerprints, "root": root})


def _handle_failure(
    config: Config, run: Run, watch: subprocesses.Watch, error: BaseException
) -> None:
    """Record why the run ended.

    Raises:
        Exception: the cause of the error, if it is known.
    """
    cause = None
    if not isinstance(error, UserError | Interrupted):
        cause = explain_failure(error, run.folder) or watch.find_cause()
    if run.is_initialized and run.state != "finished":
        with suppress(OSError):  # if the disk is full, the error itself matters more
            run.fail(cause or error)
    if cause:
        raise cause from error
    if isinstance(error, Interrupted) and run.is_initialized:
        is_named = (config["name"] or config["resume"]) and not config["force"]
        advice = "repeat the command, or type" if is_named else "type"
        console.print_line(f"to resume, {advice} python -m vision_lab resume={run}")


def _build(config: Config, trainer: pl.Trainer) -> tuple[Task, DataModule, build.BuiltNetwork]:
    spec = build.spec(config)
    data = build.data(config, spec)
    network = build.network(config, spec)
    task = build.task(config, network, data=data, processes=trainer.world_size)
    build.check_training(task, trainer)
    _check_monitors(config, task, trainer)
    return task, data, network


def _check_monitors(
    config: Config,
    task: Task,
    trainer: pl.Trainer,
) -> None:
    """Check that all monitored metrics exist, rather than after the first epoch.

    Raises:
        ConfigurationError: with the metrics that exist.
    """
    monitors = {"task.monitor": task.monitor}
    for name, node in (config["callbacks"] or {}).items():
        if node and "monitor" in node:
            monitors[config.origin(f"callbacks.{name}.monitor")] = node["monitor"]
    if any(isinstance(callback, PruneTrial) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        monitors["search.metric"] = config["search"]["metric"]
    known = []
    for split in ("val", "train"):
        known += [f"{split}/{name}" for name in sorted(task.metric_names(split))]
    errors = []
    for key, monitor in monitors.items():
        if monitor not in known:
            errors.append(
                f"{key}={monitor}: there is no such metric: type one of {', '.join(known)}"
            )
    if errors:
        raise ConfigurationError("\n".join(errors))


def _find_checkpoint(
    folder: Path, task: Task, *, on_corrupt: Callable[[str, str], None]
) -> Path | None:
    return latest_checkpoint(folder, on_corrupt, find_problem=partial(find_problem, task))


def _quarantine_checkpoint(
    folder: Path,
    name: str,
    reason: str,
) -> None:
    """Rename a corrupt checkpoint, so that it is kept but never loaded."""
    new = Path(name).with_suffix(".corrupt").name
    rename_file(folder, name, new)
    console.print_warning(
        f"{format_path(folder / name)} cannot be used ({reason}); it was renamed to {new}"
    )


def _announce_resume(
    run: Run,
    checkpoint: Path,
    trainer: pl.Trainer,
) -> float:
    """Print where training resumes.

    Returns:
        Seconds of training before.

    Raises:
        ConfigurationError: if the number of processes has changed.
    """
    state = load(checkpoint, lazily=True)[STATE_KEY]
    if state["processes"] != trainer.world_size:
        raise ConfigurationError(
            f"{run} was started with {state['processes']} processes, but this command has "
            f"{trainer.world_size}: type trainer.devices={state['processes']}, or another name="
        )
    epoch, batches = state["position"]
    console.print_line(
        f"resuming     from step {state['step']} (epoch {epoch + 1}, after {batches} batches)"
    )
    changes = resume.describe_environment_changes(run)
    if changes:
        console.print_warning(
            f"the environment has changed since the run was started, so the result may not be "
            f"bit-exact: {changes}"
        )
    return float(state["seconds"])


def _fit(
    trainer: pl.Trainer,
    task: Task,
    data: DataModule,
    checkpoint: Path | None,
) -> float:
    """Train, test with the best checkpoint and save its network, on every rank.

    Returns:
        The monitored metric of the best checkpoint.
    """
    folder = Path(trainer.default_root_dir)
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint)
    except LOAD_ERRORS as error:
        is_restoring = bool(trainer._checkpoint_connector._loaded_checkpoint)
        if not is_restoring or checkpoint is None:
            raise
        raise DataError(
            f"{format_path(checkpoint)} cannot be restored ({first_line(error)}): remove it and "
            "repeat the command, which resumes from the previous checkpoint; or type force=true to "
            "start over"
        ) from error
    pruning = _find_pruning(trainer)
    if pruning:
        return pruning.value
    best = best_checkpoint(trainer)
    if best is not None and best.best_model_path:
        path = Path(best.best_model_path)
        problem = corruption(path, partial(find_weights_problem, task))
        if problem:
            raise DataError(
                f"{format_path(path)} cannot be used ({problem}): type force=true to start over"
            )
        load_state_dict(task, load(path)["state_dict"])
    weights = task.network_state_dict()
    if trainer.is_global_zero:  # before the test, which may fail for unreadable files
        save(weights, folder, "model.pth")
    trainer.test(task, datamodule=data, verbose=False)
    data.sync_unreadable()
    if best is not None and best.best_model_score is not None:
        return float(best.best_model_score)
    return float(trainer.callback_metrics[f"test/{task.monitor.split('/')[-1]}"])


def _find_pruning(trainer: pl.Trainer) -> PruneTrial | None:
    """Return the callback that has ended training early, or None."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, PruneTrial) and callback.is_pruned:
            return callback
    return None


def count_flops(task: Task) -> int:
    """Count the floating-point operations of a forward pass of one image.

    A multiplication with an addition counts as two operations.
    """
    network, inputs = task.flop_inputs()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        meta_copy(network)(*inputs)
    return int(counter.get_total_flops())


def _delete_checkpoints(trainer: pl.Trainer, folder: Path) -> None:
    """Delete the checkpoints of a finished run, if the config says so."""
    if _deletes_checkpoints(trainer):
        for file in sorted((folder / "checkpoints").glob("*.ckpt")):
            delete_file(folder, f"checkpoints/{file.name}")


def _deletes_checkpoints(trainer: pl.Trainer) -> bool:
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ResumeCheckpoint) and callback.delete_when_finished:
            return True
    return False


def best_checkpoint(trainer: pl.Trainer) -> ModelCheckpoint | None:
    """Return the callback that saves the best checkpoint, or None if there is none."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor:
            return callback
    return None


def _peak_memory(trainer: pl.Trainer) -> int | None:
    """Return the peak memory of the GPU of rank 0, or that of its process, in bytes."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory_bytes()


def _summarize(
    run: Run,
    trainer: pl.Trainer,
    task: Task,
    score: float,
    *,
    seconds: float,
    flops: int,
) -> dict[str, Any]:
    """Return the content of ``result.json``."""
    best = best_checkpoint(trainer)
    checkpoint = None
    if best is not None and best.best_model_path and not _deletes_checkpoints(trainer):
        folder = os.path.realpath(trainer.default_root_dir)
        checkpoint = os.path.relpath(best.best_model_path, folder)
    summary = {
        "metrics": {f"test/{name}": value for name, value in task.scalar_metrics("test").items()},
        "per_class": task.report.per_class(task.results["test"]),
        "monitored": {task.monitor: score},
        "measured_with": task.metric_settings(),
        "seconds": round(seconds, 1),
        "epochs": trainer.current_epoch,
        "steps": logged_step(trainer),
        "parameters": sum(parameter.numel() for parameter in task.network.parameters()),
        "flops": flops,
        "peak_memory": _peak_memory(trainer),
        "checkpoint": checkpoint,
    }
    extended_from = resume.find_extensions(run, epochs=trainer.current_epoch)
    if extended_from:
        summary["extended_from"] = extended_from
    return summary
