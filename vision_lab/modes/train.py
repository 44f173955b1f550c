"""``mode=train``: fit, then test once with the best checkpoint."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.flop_counter import FlopCounterMode

from vision_lab import build
from vision_lab.data.module import DataModule
from vision_lab.models.probing import on_meta
from vision_lab.modes import screen
from vision_lab.runs import Run
from vision_lab.tasks.base import Supervised
from vision_lab.types import ConfigurationError

PARTS = ("task", "model", "head", "data", "augment", "optim", "scheduler", "trainer", "callbacks", "logger")


def train(config: DictConfig, folder: Path) -> float:
    """Train and test one run.

    Args:
        config: the whole config.
        folder: the run's folder; README.md lists what it holds afterwards.

    Returns:
        The monitored metric of the best checkpoint, for sweepers.
    """
    started = time.monotonic()
    screen.quieten()
    build.check(config, PARTS)
    run = Run(folder)
    trainer = build.trainer(config, folder)
    if HydraConfig.get().mode == RunMode.MULTIRUN and trainer.world_size > 1:
        raise ConfigurationError("a sweep (-m) runs on one device for now: type trainer=cpu or trainer=gpu")
    if trainer.is_global_zero:
        run.refuse_if_taken()
    spec = build.spec(config)
    data = build.data(config, spec)
    network = build.network(config, spec)
    task = build.task(config, network)
    if not trainer.is_global_zero:
        return _fit(trainer, task, data)
    run.begin(
        config=OmegaConf.to_yaml(config),
        resolved=OmegaConf.to_yaml(config, resolve=True),
        overrides=list(HydraConfig.get().overrides.task),
        choices=build.choices(),
        spec=asdict(network.spec),
    )
    try:
        data.prepare_data()
        data.setup()
        cost = flops(task)
        screen.summary(run, task=task, data=data, flops=cost, notes=network.notes)
        best = _fit(trainer, task, data)
        run.finish(_result(trainer, task, seconds=time.monotonic() - started, flops=cost))
    except BaseException as error:
        run.fail(error)
        raise
    screen.metrics("test", task.scalars("test"))
    screen.unreadable(data, folder)
    screen.say(f"the run lies in {screen.shown(folder)}")
    return best


def _fit(trainer: pl.Trainer, task: Supervised, data: DataModule) -> float:
    """Train, test the best, save its network; the same on every rank."""
    trainer.fit(task, datamodule=data)
    best = best_checkpoint(trainer)
    if best is not None and best.best_model_path:
        state = torch.load(best.best_model_path, map_location=task.device, weights_only=True)["state_dict"]
        task.load_state_dict(state)
    trainer.test(task, datamodule=data, verbose=False)
    data.gather_unreadable()
    if trainer.is_global_zero:
        torch.save(task.network.state_dict(), Path(trainer.default_root_dir) / "model.pth")
    score = best.best_model_score if best is not None else None
    return float(score) if score is not None else float(trainer.callback_metrics[f"test/{task.monitor.split('/')[-1]}"])


def flops(task: Supervised) -> int:
    """Floating-point operations of one picture's forward pass, a multiplication and an addition counted as two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        on_meta(task.network)(torch.empty(1, task.spec.channels, *task.spec.image_size, device="meta"))
    return int(counter.get_total_flops())


def best_checkpoint(trainer: pl.Trainer) -> ModelCheckpoint | None:
    """The callback that keeps the best checkpoint; None where there is none."""
    checkpoints = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor]
    return checkpoints[0] if checkpoints else None


def _result(trainer: pl.Trainer, task: Supervised, *, seconds: float, flops: int) -> dict[str, Any]:
    best = best_checkpoint(trainer)
    path = Path(best.best_model_path) if best is not None and best.best_model_path else None
    return {
        "metrics": {f"test/{name}": value for name, value in task.scalars("test").items()},
        "per_class": task.per_class("test"),
        "seconds": round(seconds, 1),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "parameters": sum(parameter.numel() for parameter in task.network.parameters()),
        "flops": flops,
        "checkpoint": str(path.relative_to(trainer.default_root_dir)) if path else None,
    }
