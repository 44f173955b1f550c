"""Random changes of values, texts, bytes and folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{letter}: &{letter} [{','.join([f'*{chr(ord(letter) - 1)}'] * 9)}]\n" for letter in "bcdefghi"
)
"""YAML of a few hundred bytes that stands for gigabytes."""

NAMES = (
    *(
        "",
        " ",
        ".",
        "..",
        "???",
        "null",
        "true",
        "1e3",
        "-",
        "=",
        "a,b",
        "'",
        '"',
        "\\",
        "a/b",
        "../up",
        "a\nb",
    ),
    *(
        "[/b]",
        "[red]x[/red]",
        "[link=http://x]x[/link]",
        "<script>alert(1)</script>",
        "$\\frac{",
        "`rm`",
        "=cmd|x",
    ),
    *(
        "a\x1b]0;title\x07b",
        "\u202egnp",
        "caf\u00e9",
        "\ud800",
        "x" * 300,
        "\U0001f99d",
        "%s%n",
        "{0.__class__}",
    ),
    *(
        "${oc.env:SECRET_TOKEN}",
        "${seed}",
        "${oc.create:{_target_:os.system,command:x}}",
        "${names_from:vision_lab.data.bundled.names.read_names,secret}",
    ),
)
"""Texts that somebody may take for more than a name."""

NUMBERS = (
    *(
        0,
        -1,
        1,
        2,
        0.5,
        1.5,
        -0.0,
        255,
        256,
        10**6,
        10**9,
        2**31,
        2**63,
        2**64,
        10**20,
        10**400,
        -(10**12),
    ),
    *(float("nan"), float("inf"), -float("inf"), 1e-300, 1e300),
)

TARGETS = (
    "os.system subprocess.run torch.hub.load torch.load builtins.eval builtins.exec "
    "torch.nn.modules.module.os.system functools.partial importlib.import_module evil.hubconf.go "
    "torch.utils.cpp_extension.load_inline torch.serialization.load torch.jit.load "
    "torch.package.PackageImporter pytorch_lightning.callbacks.ModelCheckpoint pytorch_lightning.loggers.TensorBoardLogger "
    "pytorch_lightning.loggers.CSVLogger pytorch_lightning.profilers.AdvancedProfiler "
    "pytorch_lightning.callbacks.DeviceStatsMonitor "
    "torchvision.datasets.MNIST torchvision.datasets.utils.download_url "
    "torchvision.transforms.v2.Lambda torchvision.transforms.v2.functional.to_pil_image "
    "torch.nn.Identity torch.nn.Linear torch.optim.SGD torch.optim.LBFGS torch.nn.Transformer torch.nn.LazyLinear "
    "vision_lab.cli.main.main vision_lab.run_folders.folder.Run vision_lab.core.files.write_file "
    "vision_lab.training.checkpoint_io.save vision_lab.config.instantiation.locate vision_lab.data.formats.image_folder.class_names "
    "vision_lab.callbacks.checkpointing.BestCheckpoint "
    "vision_lab.data.formats.torchvision_download.load_or_download timm.create_model pathlib.Path.touch "
    "logging.FileHandler omegaconf.OmegaConf.load yaml.unsafe_load pickle.load a..b"
).split(" ") + [""]

REFERENCES = (
    "${seed} ${run} ${data.root} ${optimizer} ${model.network} ${a.b.c} ${ ${} ${x ${optimizer.} "
    "${oc.env:SECRET_TOKEN} ${oc.env:PL_GLOBAL_SEED,z} ${oc.decode:os.system} ${oc.select:seed,1} ${now:%Y} "
    "${oc.create:{_target_:os.system}} ${names_from:vision_lab.data.bundled.names.read_names,../../secret.txt} ${names_from:os.system,hostname} "
    "${names_from:os.listdir,.} ${names_from:vision_lab.data.formats.yolo_txt.class_names,..} ${hydra:runtime.cwd} ${resume}/evil ${.a} "
    "${choice:model} ${times:1000000,abc} ${count:${data.root}} ${one_of:[a],b} \\${seed} ${${seed}}"
).split(" ")

ARGUMENTS = (
    "_args_ _partial_ _convert_ _recursive_ _target_ dirpath save_dir filename root download weights path "
    "default_root_dir profiler logger callbacks plugins version name sub_dir defaults __init__ 0 lr "
    "monitor on_bad spec spec.x target seed trust"
).split(" ")


def hub(folder: str) -> dict[str, Any]:
    """A call that runs the code beside the config."""
    return {
        "_target_": "torch.hub.load",
        "repo_or_dir": f"{folder}/evil",
        "model": "go",
        "source": "local",
    }


def random_value(chance: Random, victim: Path, depth: int = 0) -> Any:
    """Draw a plain value that somebody may stumble over."""
    kind = chance.randrange(10)
    if kind == 0:
        return chance.choice(NUMBERS)
    if kind == 1:
        return chance.choice(NAMES)
    if kind == 2:
        return chance.choice(REFERENCES)
    if kind == 3:
        return chance.choice(
            [None, True, False, [], {}, "", [[]], {"": None}, "x" * 10_000, [0] * 10_000]
        )
    if kind == 4:
        return chance.choice(
            [
                str(victim),
                f"{victim}/x",
                "../victim",
                "../" * 30 + str(victim)[1:],
                "/dev/zero",
                "/proc/self",
            ]
        )
    if kind == 5:
        return hub(chance.choice(["gift", "${run}", "${resume}", "."]))
    if kind == 6:
        node = {"_target_": chance.choice(TARGETS)}
        for _ in range(chance.randrange(4)):
            node[chance.choice(ARGUMENTS)] = (
                random_value(chance, victim, depth + 1) if depth < 3 else str(victim)
            )
        return node
    if kind == 7 and depth < 3:
        return [random_value(chance, victim, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 8 and depth < 3:
        return {
            chance.choice([*ARGUMENTS, *NAMES]): random_value(chance, victim, depth + 1)
            for _ in range(chance.randrange(3))
        }
    return nested(chance.choice([30, 60, 200]))


def nested(levels: int) -> Any:
    """A list in a list in a list."""
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each (mapping or list, key or index) of nested values."""
    items = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, value in list(items):
        yield node, key
        yield from places(value)


def mutate_values(chance: Random, content: Any, victim: Path) -> Any:
    """Change a few of nested plain values, in place where there are any."""
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        found = list(places(content))  # an earlier change may have removed some
        if not found:
            return random_value(chance, victim)
        node, key = chance.choice(found)
        action = chance.randrange(6)
        if action == 0:
            del node[key]
        elif action == 1 and isinstance(node, dict):
            node[chance.choice([*ARGUMENTS, *NAMES])] = random_value(chance, victim)
        elif action == 2:
            other, index = chance.choice(found)
            node[key] = deepcopy(chance.choice([other[index], other[index], other]))
        elif action == 3 and isinstance(node[key], int | float) and not isinstance(node[key], bool):
            node[key] = chance.choice(
                [node[key] * factor for factor in (-1, 0, 1.5)] + list(NUMBERS)
            )
        else:
            node[key] = random_value(chance, victim)
    return content


def mutate_bytes(chance: Random, content: bytes) -> bytes:
    """Cut, flip, repeat or replace some bytes."""
    if not content:
        return chance.randbytes(20)
    data = bytearray(content)
    action = chance.randrange(8)
    place = chance.randrange(len(data))
    if action == 0:
        return bytes(data[:place])
    if action == 1:
        return b""
    if action == 2:
        return chance.randbytes(chance.choice([1, 10, 5000]))
    if action == 3:
        return (
            bytes(data[:place])
            + bytes(data[place : place + 50]) * chance.choice([2, 100])
            + bytes(data[place:])
        )
    if action == 4:
        text = chance.choice(
            [
                *NAMES,
                *REFERENCES,
                *map(str, NUMBERS),
                "[" * 100_000,
                BOMB,
                "!!python/object:os.system x",
            ]
        )
        return bytes(data[:place]) + text.encode(errors="surrogatepass") + bytes(data[place:])
    if action == 5:
        other = chance.randrange(len(data))
        return bytes(data[: min(place, other)]) + bytes(data[max(place, other) :])
    for _ in range(chance.choice([1, 2, 8, 64])):
        data[chance.randrange(min(len(data), chance.choice([32, 256, len(data)])))] = chance.choice(
            [0, 255, 127, chance.randrange(256)]
        )
    return bytes(data)


def replace_by_special(chance: Random, path: Path, victim: Path, *, secret: bool = True) -> None:
    """Put a link, a pipe, a folder or a device in the place of a file or folder.

    Args:
        chance: random numbers.
        path: the file or folder.
        victim: a folder that links may lead to.
        secret: whether links may lead to the secret; those of a data set are followed, as SECURITY.md says.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    kind = chance.randrange(8)
    if kind == 0:
        path.symlink_to(victim)
    elif kind == 1:
        path.symlink_to(victim / chance.choice(["notes.txt", "best.ckpt", "a.png"]))
    elif kind == 2:
        path.symlink_to(
            chance.choice(
                ["/dev/zero", "/dev/random", "/proc/self/mem", "/proc/kmsg", path, "nowhere"]
            )
        )
    elif kind == 3 and secret:
        path.symlink_to(victim.parent / "secret.txt")
    elif kind == 4:
        os.mkfifo(path)
    elif kind == 5:
        path.mkdir()
    elif kind == 6:
        path.mkdir()
        (path / "x").symlink_to(victim)
    else:
        path.touch()
        path.chmod(0)
