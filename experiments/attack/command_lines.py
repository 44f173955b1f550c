"""Attempts with command lines: any key, any value, any flag."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from random import Random

import mutations
from run_folders import FAST

SMALL_MODELS = ("resnet20", "squeezenet1_1", "mobilenet_v3_small", "resnet18", "unet", "dcgan")

DATA = (
    "fashion_mini",
    "scenes",
    "folder",
    "images",
    "masks",
    "coco",
    "yolo_txt",
    "voc_detect",
    "camvid",
    "imagenet",
)

FLAGS = (
    "-m|--multirun|--cfg job|--cfg all|--cfg|--resolve|--package|--config-dir|--help|-h|--help model|--version|--info|"
    "--config-name nope|--run|--hydra-help|-p optimizer|--nonsense|--"
).split("|")

VALUES = (
    "0 -1 1 2 1.5 1e400 nan inf 100000000000000000000 abc null true ??? [] [1,2] [a,b] {} {a:1} 1,2 abc,1 "
    "range(0,0) choice(1,2) interval(0,1) glob(*) ${seed} ${oc.env:SECRET_TOKEN} ${nothing} ${ } [ ( ' \" \\ ~ "
    "caf\u00e9 ../x nowhere gift a.png /proc/x /dev/null a/b/c \x1b[31m auto none val/loss [/b] !! 0x10 1_000 "
    "+1 $(touch+x) %s a=b a:b @x * ? [[1,2],[3]] {a:{b:c}}"
).split(" ") + ["", "a b", "x" * 300]


@cache
def _keys(task: str) -> tuple[str, ...]:
    """The dotted keys of a task's default config."""
    from hydra import compose, initialize_config_dir

    from vision_lab.cli.suggestions import _list_keys
    from vision_lab.config.groups import CONFIG_DIR

    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
        found = _list_keys(compose("config", overrides=[f"task={task}"]))
    return tuple(key for key in found if key and not key.endswith("_target_"))


@cache
def _choices() -> dict[str, tuple[str, ...]]:
    """The choices of each group, without the largest models and what would be downloaded."""
    from vision_lab.config.groups import CONFIG_DIR, find_groups

    found = {
        group: tuple(choice.name for choice in listed)
        for group, listed in find_groups([CONFIG_DIR]).items()
    }
    return found | {"model": SMALL_MODELS, "data": DATA}


def attack_command_line(chance: Random, folder: Path, runs: Path) -> list[str]:
    """Draw a few words beside those of a run of seconds."""
    shutil.copy(runs / "a.png", "a.png")
    task = chance.choice(["classify", "classify", "segment", "detect", "generate"])
    small = {
        "classify": ["data.samples_per_class=8"],
        "generate": ["data.samples_per_class=8", "task.num_samples=4"],
    }
    words = [*FAST, "logger=none", f"task={task}"]
    words += small.get(
        task, ["data.num_images={train: 8, val: 2, test: 2}", "data.spec.image_size=[64,64]"]
    )
    drawn: list[str] = []
    for _ in range(chance.choice([1, 1, 1, 2, 2, 3])):
        drawn += _draw(chance, task)
    if chance.random() < 0.2:
        drawn += chance.choice(
            ["mode=evaluate", "mode=predict", "mode=check", "mode=check data=folder data.root=."]
        ).split()
    if chance.random() < 0.2:
        shutil.copytree(runs / "outputs" / "labels", "gift")
        words = [*FAST, "run=gift"] if chance.random() < 0.8 else ["resume=gift"]
        drawn += chance.choice(
            ["", "", "mode=predict source=a.png", "mode=evaluate", "mode=evaluate mode.split=val"]
        ).split()
    chance.shuffle(drawn)
    return [word for word in [*words, *drawn] if "\0" not in word]


def _draw(chance: Random, task: str) -> list[str]:
    """Draw a word, or a flag with its value."""
    kind = chance.randrange(20)
    sign = chance.choice([""] * 10 + ["+", "++", "~"])
    if kind < 13:
        return [f"{sign}{chance.choice(_keys(task))}={chance.choice(VALUES)}"]
    if kind < 17:
        group, names = chance.choice(list(_choices().items()))
        value = chance.choice(names) if chance.random() < 0.8 else chance.choice(VALUES)
        return [f"{sign}{group}{'@head' if chance.random() < 0.05 else ''}={value}"]
    if kind == 17:
        return chance.choice(FLAGS).split(" ")
    return [chance.choice([*VALUES, *mutations.NAMES, "optimizer", "=", "a=b=c", "-m seed=0,1"])]
