"""Attempts with command lines: any key, any value, any flag."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from random import Random

import mutations
from run_folders import FAST

SMALL_MODELS = ("resnet20", "squeezenet1_1", "mobilenet_v3_small", "resnet18", "unet", "dcgan")

HEAVY = {"model", "data"}
"""Groups of which only some choices are tried where the command may go on to train."""

DATA = ("fashion_mini", "scenes", "folder", "pictures", "masks", "coco", "yolo_txt", "voc_detect", "camvid", "imagenet")

FLAGS = (
    "-m",
    "--multirun",
    "--cfg job",
    "--cfg all",
    "--cfg",
    "--resolve",
    "--package",
    "--config-dir",
    "--help",
    "-h",
)
FLAGS += (
    "--help model",
    "--version",
    "--info",
    "--config-name nope",
    "--run",
    "--hydra-help",
    "-p optim",
    "--nonsense",
    "--",
)

VALUES = (
    *(
        "0",
        "-1",
        "1",
        "2",
        "1.5",
        "1e400",
        "nan",
        "inf",
        "100000000000000000000",
        "abc",
        "null",
        "true",
        "",
        "???",
        "[]",
    ),
    *(
        "[1,2]",
        "[a,b]",
        "{}",
        "{a:1}",
        "1,2",
        "abc,1",
        "range(0,3)",
        "range(0,0)",
        "choice(1,2)",
        "interval(0,1)",
        "glob(*)",
    ),
    *(
        "${seed}",
        "${oc.env:SECRET_TOKEN}",
        "${nothing}",
        "${",
        "}",
        "[",
        "(",
        "'",
        '"',
        "\\",
        "~",
        "#",
        "a b",
        "caf\u00e9",
    ),
    *(
        "../x",
        "nowhere",
        "gift",
        "a.png",
        "/proc/x",
        "/dev/null",
        "a/b/c",
        "x" * 300,
        "\x1b[31m",
        "auto",
        "none",
        "val/loss",
    ),
    *(
        "[/b]",
        "!!",
        "0x10",
        "1_000",
        "+1",
        "$(touch x)",
        "%s",
        "a=b",
        "a:b",
        "@x",
        "*",
        "?",
        "[[1,2],[3]]",
        "{a:{b:c}}",
    ),
)


@cache
def _keys() -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The dotted keys of the default configs of all tasks, and the choices of each group."""
    from hydra import compose, initialize_config_dir

    from vision_lab.command_line import _leaves
    from vision_lab.config.groups import CONF, groups

    found: dict[str, None] = {}
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        for task in ("classify", "segment", "detect", "generate"):
            found |= dict.fromkeys(_leaves(compose("config", overrides=[f"task={task}"])))
    choices = {group: tuple(choice.name for choice in listed) for group, listed in groups([CONF]).items()}
    return tuple(key for key in found if key), choices


def attack_command_line(chance: Random, folder: Path, runs: Path) -> list[str]:
    """Draw a few words beside those of a run of seconds."""
    keys, choices = _keys()
    shutil.copy(runs / "a.png", "a.png")
    words: list[str] = []
    for _ in range(chance.choice([1, 1, 2, 2, 3, 4])):
        kind = chance.randrange(10)
        if kind < 5:
            key = chance.choice(keys)
            if key.endswith("_target_"):
                continue
            words.append(f"{chance.choice(['', '', '', '', '+', '++', '~'])}{key}={chance.choice(VALUES)}")
        elif kind < 8:
            group = chance.choice(list(choices))
            listed = {"model": SMALL_MODELS, "data": DATA}.get(group, choices[group])
            value = chance.choice(listed) if chance.random() < 0.7 else chance.choice(VALUES)
            words.append(
                f"{chance.choice(['', '', '', '+', '~'])}{group}{chance.choice(['', '', '', '@head'])}={value}"
            )
        elif kind == 8:
            words += chance.choice(FLAGS).split(" ")
        else:
            words.append(chance.choice([*VALUES, *mutations.NAMES, "optim", "=", "a=b=c", "hydra.run.dir=/proc/x"]))
    if chance.random() < 0.2:
        words.append(
            chance.choice(["mode=evaluate", "mode=predict", "mode=check", "mode=check data=folder data.root=."])
        )
    if chance.random() < 0.2:
        shutil.copytree(runs / "outputs" / "labels", "gift")
        words.append(
            chance.choice(["run=gift", "resume=gift", "run=gift mode=predict source=a.png", "run=gift mode=evaluate"])
        )
    typed = [part for word in words for part in (word.split(" ") if word.startswith(("run=", "mode=")) else [word])]
    chance.shuffle(typed)
    small = ["data.per_class=8", "data.counts={train: 8, val: 2, test: 2}"]
    fits = [small[1]] if any("scenes" in w or "segment" in w or "detect" in w for w in typed) else [small[0]]
    return [word for word in [*FAST, *fits, "logger=none", *typed] if "\0" not in word]
