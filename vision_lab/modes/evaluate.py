"""``mode=evaluate run=...``: measure a trained run again, on any split, or on other data with the same classes."""

import json
from pathlib import Path

from omegaconf import DictConfig
from torchvision.io import write_png

from vision_lab import build
from vision_lab.files import shown, write
from vision_lab.modes import screen
from vision_lab.modes.trained import relabelled, trained_task
from vision_lab.runs import Run
from vision_lab.types import ConfigurationError, Split

PARTS = ("task", "model", "head", "data", "augment", "optim", "scheduler", "trainer")


def evaluate(config: DictConfig, folder: Path, *, split: Split) -> None:
    """Measure one split.

    Args:
        config: the run's config, with what the command line changes.
        folder: ``<run>/evaluate``; gets ``<split>.json`` and the split's figures.
        split: train, val or test.
    """
    if config.run is None:
        raise ConfigurationError("mode=evaluate measures a run: type run=<its folder>")
    if split not in ("train", "val", "test"):
        raise ConfigurationError(f"mode.split={split}: type train, val or test")
    screen.quieten()
    build.check(config, PARTS)
    task = trained_task(config, Run.existing(config.run))
    data = build.data(config, task.spec, relabel=relabelled(task, build.spec(config)))
    data.measured = split
    trainer = build.trainer(config, folder, callbacks=build.callbacks(config, only=["progress"]), logger=False)
    trainer.test(task, datamodule=data, verbose=False)
    if not trainer.is_global_zero:
        return
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "metrics": {f"{split}/{name}": value for name, value in task.scalars("test").items()},
        "per_class": task.per_class("test"),
        "data": build.choices().get("data"),
    }
    write(folder / f"{split}.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    for name, picture in task.figures("test").items():
        write_png(picture, str(folder / f"{split}_{name}.png"))
    screen.metrics(split, task.scalars("test"))
    screen.per_class(task.per_class("test"))
    screen.unreadable(data, folder)
    screen.say(f"written to {shown(folder)}")
