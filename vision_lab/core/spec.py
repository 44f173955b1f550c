"""The properties of a dataset that models, heads and tasks depend on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from vision_lab.core.arguments import Count, Hint, Positive, Range
from vision_lab.core.errors import ConfigurationError

Target = Literal["labels", "masks", "boxes", "none"]
Split = Literal["train", "val", "test", "predict"]

UNKNOWN_LABEL = -1
"""Label of an image whose class is not known."""

IGNORE_INDEX = 255
"""Mask value of pixels that losses and metrics ignore."""

MAX_CLASSES = 100_000
"""Upper limit that catches mistakes and files crafted to exhaust the memory."""

MAX_CHANNELS = 1024


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The properties of a dataset that models, heads and tasks depend on.

    Attributes:
        target_type: what the targets are.
        class_names: the name of each class, in the order of the class indices.
        num_classes: number of classes.
        image_size: (height, width) of the batch images in pixels.
        channels: number of image channels: 1 for grayscale, 3 for RGB, other for custom tensors.
        mean: mean of the pixels in [0, 1], one per channel or one for all.
        std: standard deviation of the pixels in [0, 1], one per channel or one for all.

    Raises:
        ConfigurationError: if the values do not fit together, listing all problems.
    """

    target_type: Target
    class_names: Annotated[
        tuple[str, ...], Hint('a list of names, numbers in quotes: [cat,dog,"1"]')
    ]
    num_classes: Annotated[int, Range(ge=0, le=MAX_CLASSES)]
    image_size: Annotated[tuple[Count, Count], Hint("[height,width] in pixels")]
    channels: Annotated[int, Range(ge=1, le=MAX_CHANNELS)]
    mean: Annotated[
        tuple[float, ...], Hint("a list of numbers, one for each channel or one for all")
    ]
    std: Annotated[
        tuple[Positive, ...], Hint("a list of numbers above 0, one for each channel or one for all")
    ]

    def __post_init__(self) -> None:
        errors = [*self._find_class_errors(), *self._find_pixel_errors()]
        if errors:
            raise ConfigurationError("\n".join(errors))

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Self:
        """Create a spec from the plain values of a config or a JSON file.

        Args:
            values: the attributes, with lists for tuples.

        Raises:
            ConfigurationError: if an attribute is missing, unknown or invalid.
        """
        arguments = dict(values)
        for key, value in values.items():
            if isinstance(value, list):
                arguments[key] = tuple(value)
        try:
            return cls(**arguments)
        except TypeError as error:
            raise ConfigurationError(f"data.spec: {error}") from error

    def _find_class_errors(self) -> list[str]:
        names: object = self.class_names
        if isinstance(names, str):  # its letters would be taken for the names
            return [f"data.spec.class_names={names}: type a list, [{names},...]"]
        errors = []
        count = len(self.class_names)
        repeated = []
        for name, uses in Counter(self.class_names).items():
            if uses > 1:
                repeated.append(name)
        if repeated:
            errors.append(
                f"data.spec.class_names contains {', '.join(map(str, repeated))} more than once: "
                "class names must be unique"
            )
        if count != self.num_classes:
            errors.append(
                f"data.spec.num_classes={self.num_classes}, but data.spec.class_names has {count}"
            )
        if self.target_type == "masks" and self.num_classes > IGNORE_INDEX:
            errors.append(
                f"data.spec.class_names has {self.num_classes} names: masks can hold at most "
                f"{IGNORE_INDEX} classes"
            )
        return errors

    def _find_pixel_errors(self) -> list[str]:
        errors = []
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            size = list(self.image_size)
            errors.append(f"data.spec.image_size={size}: type [height,width] in pixels")
        if self.channels < 1:
            errors.append(f"data.spec.channels={self.channels}: type 1 for grayscale or 3 for RGB")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                errors.append(
                    f"data.spec.{name} has {len(values)} numbers for {self.channels} channels: "
                    "type one number, or one for each channel"
                )
        if min(self.std, default=1) <= 0:
            errors.append(f"data.spec.std={list(self.std)}: type numbers above 0")
        return errors
