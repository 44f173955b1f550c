"""Cascades of Haar features as OpenCV's classifiers, and those that OpenCV comes with."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vision_lab.core.extras import import_opencv
from vision_lab.models.classic.haar_features import MAX_RECTANGLES

OPENCV_FILES = {
    "face": "haarcascade_frontalface_default.xml",
    "profile_face": "haarcascade_profileface.xml",
    "eye": "haarcascade_eye.xml",
    "smile": "haarcascade_smile.xml",
    "cat_face": "haarcascade_frontalcatface.xml",
    "person": "haarcascade_fullbody.xml",
    "upper_body": "haarcascade_upperbody.xml",
    "lower_body": "haarcascade_lowerbody.xml",
}
"""Names of objects, and the file of OpenCV's cascade for each."""


class Cascade(NamedTuple):
    """A cascade of boosted stumps.

    Attributes:
        size: (2,) height and width of its window in pixels.
        features: (F, ``MAX_RECTANGLES``, 5) x, y, width, height and weight of each rectangle.
        tilted: (F,) 1 for features turned by 45 degrees, 0 for others.
        stages: (S, 2) number of stumps and threshold of each stage.
        stumps: (T, 4) of all stages, one after the other: index of a feature, threshold, and the
            votes below and from the threshold.
    """

    size: Tensor
    features: Tensor
    tilted: Tensor
    stages: Tensor
    stumps: Tensor


def to_opencv(cascade: Cascade) -> Any:
    """Build OpenCV's classifier of a cascade."""
    cv2 = import_opencv("haar_cascade")
    flags = cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY
    storage = cv2.FileStorage(to_xml(cascade), flags)
    classifier = cv2.CascadeClassifier()
    classifier.read(storage.getFirstTopLevelNode())
    return classifier


def to_xml(cascade: Cascade) -> str:
    """Write a cascade in OpenCV's format, which ``cv2.CascadeClassifier`` reads."""
    height, width = cascade.size.int().tolist()
    stages = _split_stages(cascade)
    if len(stages) == 1:
        # OpenCV lets windows without contrast pass one stage: before it comes one that all pass.
        stages = [(torch.zeros(1, 4), -1.0), *stages]
    storage = ET.Element("opencv_storage")
    root = ET.SubElement(storage, "cascade", type_id="opencv-cascade-classifier")
    _add(root, "stageType", "BOOST")
    _add(root, "featureType", "HAAR")
    _add(root, "height", height)
    _add(root, "width", width)
    largest = max((len(stumps) for stumps, _ in stages), default=0)
    _add(ET.SubElement(root, "stageParams"), "maxWeakCount", largest)
    _add(ET.SubElement(root, "featureParams"), "maxCatCount", 0)
    _add(root, "stageNum", len(stages))
    _add_stages(ET.SubElement(root, "stages"), stages)
    _add_features(ET.SubElement(root, "features"), cascade)
    return '<?xml version="1.0"?>' + ET.tostring(storage, encoding="unicode")


def read_opencv_cascade(name: str) -> Cascade:
    """Read a cascade that OpenCV comes with.

    Args:
        name: one of ``OPENCV_FILES``.
    """
    cv2 = import_opencv("haar_cascade")
    tree = ET.parse(Path(cv2.data.haarcascades) / OPENCV_FILES[name])
    root = next(iter(tree.getroot()))
    stages, stumps = [], []
    for stage in root.findall("./stages/_"):
        nodes = stage.findall("./weakClassifiers/_")
        stages.append([float(len(nodes)), _numbers(stage, "stageThreshold")[0]])
        for node in nodes:
            feature_and_threshold = _numbers(node, "internalNodes")[2:]
            stumps.append([*feature_and_threshold, *_numbers(node, "leafValues")])
    features, tilted = [], []
    for feature in root.findall("./features/_"):
        features.append(_read_rectangles(feature))
        tilted.append(float(feature.findtext("tilted", default="0")))
    size = _numbers(root, "height") + _numbers(root, "width")
    return Cascade(*map(torch.tensor, (size, features, tilted, stages, stumps)))


def _read_rectangles(feature: ET.Element) -> list[list[float]]:
    rectangles = []
    for rectangle in feature.findall("./rects/_"):
        rectangles.append([float(number) for number in (rectangle.text or "").split()])
    return rectangles + [[0.0] * 5] * (MAX_RECTANGLES - len(rectangles))


def _numbers(parent: ET.Element, name: str) -> list[float]:
    return [float(number) for number in parent.findtext(name, default="").split()]


def _split_stages(cascade: Cascade) -> list[tuple[Tensor, float]]:
    lengths = cascade.stages[:, 0].int().tolist()
    thresholds = cascade.stages[:, 1].tolist()
    return list(zip(cascade.stumps.split(lengths), thresholds, strict=True))


def _add(parent: ET.Element, name: str, value: object) -> None:
    ET.SubElement(parent, name).text = str(value)


def _add_stages(parent: ET.Element, stages: list[tuple[Tensor, float]]) -> None:
    for stumps, threshold in stages:
        stage = ET.SubElement(parent, "_")
        _add(stage, "maxWeakCount", len(stumps))
        _add(stage, "stageThreshold", threshold)
        classifiers = ET.SubElement(stage, "weakClassifiers")
        for feature, value, below, above in stumps.tolist():
            stump = ET.SubElement(classifiers, "_")
            _add(stump, "internalNodes", f"0 -1 {int(feature)} {value}")
            _add(stump, "leafValues", f"{below} {above}")


def _add_features(parent: ET.Element, cascade: Cascade) -> None:
    for rectangles, tilted in zip(cascade.features.tolist(), cascade.tilted.tolist(), strict=True):
        feature = ET.SubElement(parent, "_")
        listed = ET.SubElement(feature, "rects")
        for *corners, weight in rectangles:
            if weight:
                _add(listed, "_", f"{' '.join(str(int(value)) for value in corners)} {weight}")
        _add(feature, "tilted", int(tilted))
