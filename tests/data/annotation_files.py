"""A small dataset with boxes in each supported format."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("ash", "beech", "cedar")

SIZES = {"a": (80, 40), "b": (60, 60), "c": (40, 80), "d": (64, 48)}
"""name: (width, height) of an image."""

BOXES: dict[str, list[tuple[str, tuple[float, float, float, float]]]] = {
    "a": [("ash", (8, 4, 40, 30)), ("cedar", (20, 10, 80, 40))],
    "b": [("beech", (0, 0, 60, 60))],
    "c": [],
    "d": [("cedar", (16, 12, 48, 36)), ("ash", (4, 4, 20, 40)), ("ash", (32, 24, 64, 48))],
}
"""name: class, left, top, right and bottom of each object. Sizes are such that parts of them are exact."""

Boxes = Mapping[str, Sequence[tuple[str, Sequence[float]]]]


def image(path: Path, size: tuple[int, int], *, seed: int = 0) -> Path:
    """Random pixels, so that no two images are equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([seed, *path.stem.encode()]).integers(
        0, 255, (size[1], size[0], 3), dtype=np.uint8
    )
    Image.fromarray(pixels).save(path)
    return path


def coco(root: Path, boxes: Boxes = BOXES, *, split: str = "train") -> Path:
    """``annotations/instances_<split>.json``, with gaps between ids."""
    numbers = {name: 10 * (k + 1) for k, name in enumerate(NAMES)}
    images, annotations = [], []
    for place, (name, (width, height)) in enumerate(SIZES.items()):
        image(root / split / f"{name}.png", (width, height))
        images.append(
            {"id": 5 * place + 3, "file_name": f"{name}.png", "width": width, "height": height}
        )
        for kind, (left, top, right, bottom) in boxes[name]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 5 * place + 3,
                    "category_id": numbers.get(kind, 99),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    (root / "annotations").mkdir(exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def voc(root: Path, boxes: Boxes = BOXES) -> Path:
    """``Annotations/`` and ``JPEGImages/``, boxes counted from 1 with their last pixel."""
    (root / "Annotations").mkdir(parents=True)
    for name, (width, height) in SIZES.items():
        image(root / "JPEGImages" / f"{name}.png", (width, height))
        objects = "".join(
            f"<object><name>{kind}</name><difficult>0</difficult><bndbox><xmin>{box[0] + 1}</xmin><ymin>{box[1] + 1}"
            f"</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
            for kind, box in boxes[name]
        )
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{name}.png</filename>{size}{objects}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(text)
    return root


def yolo(root: Path, boxes: Boxes = BOXES) -> Path:
    """``images/``, ``labels/`` and ``data.yaml``; an image without objects has no text file."""
    (root / "labels").mkdir(parents=True)
    for name, (width, height) in SIZES.items():
        image(root / "images" / f"{name}.png", (width, height))
        lines = []
        for kind, (left, top, right, bottom) in boxes[name]:
            x, y = (left + right) / 2 / width, (top + bottom) / 2 / height
            number = NAMES.index(kind) if kind in NAMES else len(NAMES)
            lines.append(
                f"{number} {x!r} {y!r} {(right - left) / width!r} {(bottom - top) / height!r}"
            )
        if lines:
            (root / "labels" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (root / "data.yaml").write_text(
        "names:\n" + "".join(f"  {k}: {name}\n" for k, name in enumerate(NAMES))
    )
    return root


FORMATS = {"coco": coco, "voc_detect": voc, "yolo_txt": yolo}
"""data=: what makes it."""
