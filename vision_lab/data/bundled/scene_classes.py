"""What the classes of ``data=scenes`` are called, and which garments they take in. No torch here: app reads it too."""

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
"""The group of each garment: those that are alike at 28 pixels."""


def class_names(classes: str, *, background: bool) -> list[str]:
    """The names of the classes.

    Args:
        classes: ``grouped``: five kinds of garments; ``all``: Fashion-MNIST's ten.
        background: whether a class for what is no garment comes first, as masks need it.
    """
    return ["background"] * background + list(dict.fromkeys(_groups(classes)))


def labels(classes: str) -> list[int]:
    """The label of each of Fashion-MNIST's ten classes, from 0, background not counted."""
    groups = _groups(classes)
    return [list(dict.fromkeys(groups)).index(group) for group in groups]


def _groups(classes: str) -> Sequence[str]:
    if classes not in ("grouped", "all"):
        raise ConfigurationError(f"data.label_set={classes}: type grouped or all")
    return GROUP_NAMES if classes == "grouped" else GARMENTS
