"""Attempts on data sets: annotations in five formats that are wrong, huge or malicious."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import mutations
import numpy as np
import yaml
from PIL import Image
from run_folders import FAST

COUNT = 6

ENTITIES = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "x">' + "".join(
    f'<!ENTITY {name} "{f"&{chr(ord(name) - 1)};" * 9}">' for name in "bcdefghi"
)
ENTITIES += "]>"
"""The beginning of an XML file whose ``&i;`` stands for gigabytes."""

EXTERNAL = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY i SYSTEM "file:///etc/hostname">]>'


def attack_annotations(chance: Random, folder: Path, runs: Path) -> list[str]:
    """Make a small data set of one format, change it, and check it or train on it."""
    make = chance.choice([_coco, _coco_masks, _voc, _yolo, _masks])
    words = make(chance, Path("data"), folder)
    if chance.random() < 0.1:
        found = sorted(path for path in Path("data").rglob("*") if not path.is_symlink())
        mutations.replace_by_special(chance, chance.choice(found), folder / "victim", secret=False)
    if chance.random() < 0.6:
        return ["mode=check", "data.num_workers=0", *words]
    small = (
        ["model.stem=imagenet"]
        if "task=segment" in words
        else ["head.channels=16", "head.num_convs=1"]
    )
    bad = chance.choice([[], ["data.on_error=skip"], ["data.on_error=raise"]])
    return [*words, *FAST, *small, *bad, "logger=none", "data.batch_size=2", "name=x"]


def _image(path: Path, chance: Random) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.frombuffer(chance.randbytes(40 * 48 * 3), dtype=np.uint8).reshape(40, 48, 3)
    Image.fromarray(pixels).save(path)


def _box(chance: Random) -> list[float]:
    left, top = chance.randrange(30), chance.randrange(25)
    return [left, top, left + chance.randrange(4, 18), top + chance.randrange(4, 15)]


def _coco_content(chance: Random) -> dict[str, Any]:
    images, rows = [], []
    for number in range(COUNT):
        _image(Path("data/train") / f"{number}.png", chance)
        images.append({"id": number, "file_name": f"{number}.png", "width": 48, "height": 40})
        left, top, right, bottom = _box(chance)
        outline: Any = [[left, top, right, top, right, bottom, left, bottom]]
        if number % 3 == 0:
            outline = {"size": [40, 48], "counts": [100, 50, 40 * 48 - 150]}
        rows.append(
            {
                **{
                    "id": number + 1,
                    "image_id": number,
                    "category_id": 3 + 4 * (number % 2),
                    "iscrowd": number % 3 == 0,
                },
                **{
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                },
                "segmentation": outline,
            }
        )
    categories = [{"id": 3, "name": "ash"}, {"id": 7, "name": "beech"}]
    return {"images": images, "annotations": rows, "categories": categories}


def _write_coco(chance: Random, folder: Path) -> None:
    content: Any = _coco_content(chance)
    if chance.random() < 0.8:
        content = mutations.mutate_values(chance, content, folder / "victim")
    text = json.dumps(content).encode()
    if chance.random() < 0.25:
        text = mutations.mutate_bytes(chance, text)
    Path("data/annotations").mkdir(parents=True)
    Path("data/annotations/instances_train.json").write_bytes(text)


def _coco(chance: Random, root: Path, folder: Path) -> list[str]:
    _write_coco(chance, folder)
    return ["task=detect", "data=coco", "data.root=data", "data.spec.image_size=[64,64]"]


def _coco_masks(chance: Random, root: Path, folder: Path) -> list[str]:
    _write_coco(chance, folder)
    return ["task=segment", "data=coco_segment", "data.root=data", "data.spec.image_size=[32,32]"]


def _voc(chance: Random, root: Path, folder: Path) -> list[str]:
    (root / "Annotations").mkdir(parents=True)
    odd = [
        *mutations.NAMES,
        *map(str, mutations.NUMBERS),
        "<a/>",
        "&i;",
        "</object>",
        "<![CDATA[x]]>",
        "1e5",
        "1_0",
    ]
    for number in range(COUNT):
        _image(root / "JPEGImages" / f"{number}.png", chance)
        left, top, right, bottom = map(str, _box(chance))
        values = [
            "ash" if number % 2 else "beech",
            left,
            top,
            right,
            bottom,
            "48",
            "40",
            f"{number}.png",
            "0",
        ]
        if number < 2:
            for _ in range(chance.choice([1, 1, 2])):
                values[chance.randrange(len(values))] = chance.choice(odd)
        name, left, top, right, bottom, width, height, file, hard = values
        text = (
            f"<annotation><filename>{file}</filename><size><width>{width}</width><height>{height}</height></size><object>"
            f"<name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}"
            f"</xmax><ymax>{bottom}</ymax></bndbox></object></annotation>"
        )
        if number < 2:
            if chance.random() < 0.2:
                text = chance.choice([ENTITIES, EXTERNAL]) + text.replace("ash", "&i;").replace(
                    "beech", "&i;"
                )
            if chance.random() < 0.1:
                text = "<a>" * 50_000 + text
        content = text.encode(errors="surrogatepass")
        if number < 2 and chance.random() < 0.3:
            content = mutations.mutate_bytes(chance, content)
        (root / "Annotations" / f"{number}.xml").write_bytes(content)
    return ["task=detect", "data=voc_detect", f"data.root={root}", "data.spec.image_size=[64,64]"]


def _yolo(chance: Random, root: Path, folder: Path) -> list[str]:
    (root / "labels").mkdir(parents=True)
    odd = [*mutations.NAMES, *map(str, mutations.NUMBERS), "0x1", "1_0", "\u0663"]
    for number in range(COUNT):
        _image(root / "images" / f"{number}.png", chance)
        left, top, right, bottom = _box(chance)
        row = [
            str(number % 2),
            str((left + right) / 96),
            str((top + bottom) / 80),
            str((right - left) / 48),
            "0.2",
        ]
        if number < 2 and chance.random() < 0.8:
            row[chance.randrange(5)] = chance.choice(odd)
        content = (" ".join(row) + "\n").encode(errors="surrogatepass")
        if number < 2 and chance.random() < 0.3:
            content = mutations.mutate_bytes(chance, content)
        (root / "labels" / f"{number}.txt").write_bytes(content)
    settings: Any = {
        "names": {0: "ash", 1: "beech"},
        "nc": 2,
        "train": "images",
        "val": "images",
        "path": ".",
    }
    if chance.random() < 0.6:
        settings = mutations.mutate_values(chance, settings, folder / "victim")
        if chance.random() < 0.3 and isinstance(settings, dict):
            names = {
                chance.choice([0, -1, 5, 10**8, 10**20, "a", None]): chance.choice(mutations.NAMES)
                for _ in range(3)
            }
            settings["names"] = names
    content = b"names: [ash, beech]\n"
    with suppress(UnicodeEncodeError, yaml.YAMLError, RecursionError):
        content = yaml.safe_dump(settings).encode()
    if chance.random() < 0.2:
        content = chance.choice(
            [mutations.BOMB.encode() + content, mutations.mutate_bytes(chance, content)]
        )
    (root / "data.yaml").write_bytes(content)
    return ["task=detect", "data=yolo_txt", f"data.root={root}", "data.spec.image_size=[64,64]"]


def _masks(chance: Random, root: Path, folder: Path) -> list[str]:
    (root / "masks").mkdir(parents=True)
    for number in range(COUNT):
        _image(root / "images" / f"{number}.png", chance)
        mask = np.zeros((40, 48), dtype=np.uint8)
        mask[10:20, 5:30] = 1
        path = root / "masks" / f"{number}.png"
        if number < 2 and chance.random() < 0.5:
            mask[chance.randrange(40), chance.randrange(48)] = chance.randrange(256)
        shape = (
            chance.choice([(48, 40), (1, 1), (30, 30)])
            if number < 2 and chance.random() < 0.2
            else None
        )
        image = Image.fromarray(
            mask if number > 1 or chance.random() < 0.8 else np.stack([mask] * 3, axis=-1)
        )
        (image.resize(shape) if shape else image).save(path)
        if number < 2 and chance.random() < 0.5:
            path.write_bytes(mutations.mutate_bytes(chance, path.read_bytes()))
    words = ["task=segment", "data=masks", f"data.root={root}", "data.spec.image_size=[32,32]"]
    names = chance.choice(
        [["ground", "line"], ["a", "a"], ["[/b]", "${seed}"], ["a"], ["a", "b", "c"]]
    )
    if chance.random() < 0.2:
        (root / "images" / os.fsdecode(b"\xff.png")).write_bytes(
            (root / "images" / "0.png").read_bytes()
        )
    quoted = ",".join(json.dumps(name) for name in names)
    return [*words, f"data.spec.class_names=[{quoted}]"]
