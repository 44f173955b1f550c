"""Attempts on run folders: configs, results, checkpoints, links and names that somebody else has made."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from contextlib import chdir, redirect_stdout, suppress
from pathlib import Path
from random import Random
from typing import Any

import mutations
import torch
import yaml
from PIL import Image

FAST = ("debug=fast", "trainer=cpu", "data.num_workers=0")

WORDS = {
    "labels": ("data.samples_per_class=16",),
    "made": (
        *(
            "task=generate",
            "model.generator_channels=4",
            "model.discriminator_channels=4",
            "task.num_samples=8",
            "logger=none",
        ),
        *(
            "data.samples_per_class=8",
            "data.spec.image_size=[16,16]",
            "trainer.limit_test_batches=1",
        ),
    ),
    "masks": (
        *(
            "task=segment",
            "data.num_images={train: 8, val: 2, test: 2}",
            "data.spec.image_size=[32,32]",
            "logger=none",
        ),
        *("model.stem=imagenet", "task.class_weights=null"),
    ),
    "boxes": (
        *(
            "task=detect",
            "data.num_images={train: 8, val: 2, test: 2}",
            "data.spec.image_size=[64,64]",
            "logger=none",
        ),
        *("head.channels=16", "head.num_convs=1"),
    ),
}
"""run: the words that it is trained with."""

MODES = {
    "evaluate": ("mode=evaluate", "run=gift"),
    "predict": ("mode=predict", "run=gift", "source=a.png"),
    "train": (
        "run=gift",
        "name=new",
        "trainer=cpu",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=2",
    ),
    "resume": ("resume=gift",),
    "features": (
        "task=generate",
        *WORDS["made"][1:],
        *FAST,
        "features=run",
        "features.folder=gift",
    ),
    "sweep": ("-m", "mode=evaluate", "run=gift", "seed=0,1"),
}
"""mode: the words by which a run folder is used."""

SAMPLES = ("mode=predict", "run=gift", "mode.num_samples=2")

HUB = "from pathlib import Path\nPath({marker!r}).touch()\nimport torch\ndef go(*a, **k): return torch.nn.Identity()\n"

DOCUMENTS = ("config.yaml",) * 8 + (
    *(
        "config_resolved.yaml",
        "config_resolved.yaml",
        "overrides.yaml",
        "data_spec.json",
        "data_spec.json",
        "result.json",
    ),
    *("status.json", "data_fingerprint.json", "environment.json"),
)


def make_runs(folder: Path) -> None:
    """Train the runs that are attacked, and so import all that their modes import."""
    from vision_lab.cli.main import main

    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    with chdir(folder), Path("log.txt").open("w") as log, redirect_stdout(log):
        Image.new("RGB", (40, 40), (90, 20, 160)).save("a.png")
        for name, words in WORDS.items():
            assert main([*words, *FAST, f"name={name}"]) == 0, name
            predict = ("mode.num_samples=2",) if name == "made" else ("source=a.png",)
            assert main(["mode=predict", f"run=outputs/{name}", *predict]) == 0, name
        assert main(["mode=evaluate", "run=outputs/labels"]) == 0


class Payload:
    """Runs code where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.marker}",)


def attack_run_folder(chance: Random, folder: Path, runs: Path) -> list[str]:
    """Copy a run, change it in a few ways, and use it in one of the modes."""
    kind = chance.choice(["labels"] * 4 + ["made", "masks", "boxes"])
    mode = chance.choice(list(MODES))
    gift = Path(shutil.copytree(runs / "outputs" / kind, "gift"))
    shutil.copy(runs / "a.png", "a.png")
    (gift / "evil").mkdir()
    (gift / "evil" / "hubconf.py").write_text(HUB.format(marker=str(folder / "marker")))
    if mode == "resume" and chance.random() < 0.7:
        (gift / "result.json").unlink()
        (gift / "status.json").unlink()
    changes = [_change_document] * 6 + [
        _change_bytes,
        _replace_checkpoint,
        _change_checkpoint,
        _link,
        _add,
    ]
    for _ in range(chance.choice([1, 1, 2])):
        chance.choice(changes)(chance, gift, folder)
    return list(SAMPLES if kind == "made" and mode == "predict" else MODES[mode])


def _change_document(chance: Random, gift: Path, folder: Path) -> None:
    """Change values of a YAML or JSON file."""
    path = gift / chance.choice(DOCUMENTS)
    if not path.is_file() or path.is_symlink():
        return
    read = yaml.safe_load if path.suffix == ".yaml" else json.loads
    try:
        content = read(path.read_text())
    except (ValueError, RecursionError, yaml.YAMLError):  # damaged by a change before this one
        return
    content = mutations.mutate_values(chance, content, folder / "victim")
    # What cannot be written is left out.
    with suppress(UnicodeEncodeError, ValueError, RecursionError, yaml.YAMLError):
        if path.suffix == ".yaml":
            path.write_text(yaml.safe_dump(content, sort_keys=False))
        else:
            path.write_text(json.dumps(content))


def _change_bytes(chance: Random, gift: Path, folder: Path) -> None:
    """Damage any file."""
    path = chance.choice(
        sorted(path for path in gift.rglob("*") if path.is_file() and not path.is_symlink())
    )
    content = path.read_bytes()
    if chance.random() < 0.1:
        content = (
            chance.choice(
                [mutations.BOMB.encode(), b"[" * 50_000, b"{" * 9_000_000, b"x: 1\n" * 3_000_000]
            )
            + content
        )
    path.write_bytes(mutations.mutate_bytes(chance, content))


CHECKPOINTS = (
    "model.pth",
    "checkpoints/last.ckpt",
    "checkpoints/last.ckpt",
    "checkpoints/best.ckpt",
)


def _replace_checkpoint(chance: Random, gift: Path, folder: Path) -> None:
    """Put something else in the place of a checkpoint: code, values of other kinds, an archive that unfolds."""
    path = gift / chance.choice(CHECKPOINTS)
    if not path.is_file() or path.is_symlink():
        return
    payload = Payload(folder / "marker")
    kind = chance.randrange(4)
    if kind == 0:
        torch.save({"state_dict": payload}, path)
    elif kind == 1:
        path.write_bytes(pickle.dumps(payload))
    elif kind == 2:
        others = [None, [], {}, 1, "x", torch.zeros(2), {1: 2}, {"state_dict": {}}, {"resume": "x"}]
        torch.save(chance.choice(others), path)
    else:
        content = b"\0" * 200_000_000 if chance.random() < 0.2 else b"\x80\x02}."
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", content)


def _change_checkpoint(chance: Random, gift: Path, folder: Path) -> None:
    """Change what a checkpoint holds."""
    path = gift / chance.choice(CHECKPOINTS)
    if not path.is_file() or path.is_symlink():
        return
    try:
        content = torch.load(path, weights_only=True)
    except (
        RuntimeError,
        pickle.UnpicklingError,
        EOFError,
        ValueError,
    ):  # damaged by a change before this one
        return
    found = list(mutations.places(content))
    if not found:
        return
    if chance.random() < 0.2 and isinstance(content.get("resume"), dict):
        link = gift / "events.out.tfevents.1.evil"
        link.unlink(missing_ok=True)
        link.symlink_to(folder / "victim" / "notes.txt")
        content["resume"]["logs"] = {link.name: 0}
    else:
        node, key = chance.choice(
            [place for place in found if place[0] is content] if chance.random() < 0.3 else found
        )
        tensors = [
            torch.zeros(0),
            torch.full((3,), float("nan")),
            torch.zeros(2, 2, dtype=torch.int64),
            torch.ones(10**7),
        ]
        node[key] = chance.choice([*tensors, mutations.random_value(chance, folder / "victim")])
    stream = io.BytesIO()
    with suppress(RecursionError, ValueError, OverflowError, struct.error):
        torch.save(content, stream)
        path.write_bytes(stream.getvalue())


def _link(chance: Random, gift: Path, folder: Path) -> None:
    """Put a link, a pipe, a folder or a device in the place of something."""
    found = sorted(
        path for path in gift.rglob("*") if "evil" not in path.parts and not path.is_symlink()
    )
    names = [
        "predict",
        "evaluate",
        "samples",
        "images",
        "checkpoints",
        ".lock",
        "metrics.csv",
        "x.part",
        "model.pth",
    ]
    path = chance.choice(found) if chance.random() < 0.6 else gift / chance.choice(names)
    if path.exists() or path.is_symlink() or path.parent.is_dir():
        mutations.replace_by_special(chance, path, folder / "victim")


def _add(chance: Random, gift: Path, folder: Path) -> None:
    """Add a file or a folder with an odd name."""
    parent = chance.choice(
        [gift, *sorted(path for path in gift.iterdir() if path.is_dir() and not path.is_symlink())]
    )
    names = [
        name
        for name in mutations.NAMES
        if name not in ("", ".", "..") and "/" not in name and len(name) < 200
    ]
    names += [
        "events.out.tfevents.9",
        "multirun.yaml",
        "process-1.error",
        "last.ckpt",
        "previous.ckpt",
        ".hydra",
    ]
    with suppress(OSError, UnicodeEncodeError):
        path = parent / chance.choice(names)
        if chance.random() < 0.3:
            path.mkdir()
        else:
            path.write_bytes(
                chance.choice([b"", b"{}", b'{"known": true, "text": 5}', chance.randbytes(30)])
            )
