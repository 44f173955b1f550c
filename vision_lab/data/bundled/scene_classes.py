"""Class names of ``data=scenes``. Does not import torch, because a resolver reads them."""

from collections.abc import Sequence

from vision_lab.core.errors import ConfigurationError

GARMENTS = (
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

GROUP_NAMES = ("top", "trouser", "top", "dress", "top", "shoe", "top", "shoe", "bag", "shoe")
"""Group of each garment, of those that look alike at 28 pixels."""


def class_names(label_set: str, target_type: str) -> list[str]:
    """Return the class names.

    Args:
        label_set: ``grouped`` for five groups of garments; ``all`` for Fashion-MNIST's ten classes.
        target_type: ``boxes``; or ``masks``, which have the background as their first class.
    """
    names = list(dict.fromkeys(_names_of_garments(label_set)))
    if target_type == "masks":
        return ["background", *names]
    return names


def get_labels(label_set: str) -> list[int]:
    """Return the label of each of Fashion-MNIST's ten classes, without a background class."""
    names = _names_of_garments(label_set)
    classes = list(dict.fromkeys(names))
    return [classes.index(name) for name in names]


def _names_of_garments(label_set: str) -> Sequence[str]:
    if label_set not in ("grouped", "all"):
        raise ConfigurationError(f"data.label_set={label_set}: type grouped or all")
    if label_set == "grouped":
        return GROUP_NAMES
    return GARMENTS
