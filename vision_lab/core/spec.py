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

IGNORE_INDEX = 255
"""The value of a mask's pixels that are neither learnt from nor measured."""


MAX_CLASSES = 100_000
"""More than any data set has by far; a number beyond it is a mistake, or meant to fill the memory."""

MAX_CHANNELS = 1024


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What the other parts may know of the data.

    Attributes:
        target: what comes with a picture.
        class_names: one name a class, in the order of the labels.
        num_classes: how many there are.
        image_size: (height, width) in pixels of the pictures in a batch.
        channels: 1 for grey, 3 for colour, any other number for tensors of one's own.
        mean: one number a channel, of pictures in [0, 1].
        std: likewise.
    """

    target_type: Target
    class_names: Annotated[tuple[str, ...], Hint('a list of names, numbers in quotes: [cat,dog,"1"]')]
    num_classes: Annotated[int, Range(least=0, most=MAX_CLASSES)]
    image_size: Annotated[tuple[Count, Count], Hint("[height,width] in pixels")]
    channels: Annotated[int, Range(least=1, most=MAX_CHANNELS)]
    mean: Annotated[tuple[float, ...], Hint("a list of numbers, one for each channel or one for all")]
    std: Annotated[tuple[Positive, ...], Hint("a list of numbers above 0, one for each channel or one for all")]

    def __post_init__(self) -> None:
        errors = []
        names: object = self.class_names
        if isinstance(names, str):  # which would count as a list of letters
            raise ConfigurationError(f"data.spec.class_names={names}: type a list, [{names},...]")
        twice = [name for name, count in Counter(self.class_names).items() if count > 1]
        if twice:
            errors.append(f"data.spec.class_names has {', '.join(map(str, twice))} more than once: classes go by names")
        if len(self.class_names) != self.num_classes:
            names = len(self.class_names)
            errors.append(f"data.spec.num_classes={self.num_classes}, but data.spec.class_names has {names}")
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            errors.append(f"data.spec.image_size={list(self.image_size)}: type [height,width] in pixels")
        if self.channels < 1:
            errors.append(f"data.spec.channels={self.channels}: type 1 for grey or 3 for colour")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                errors.append(
                    f"data.spec.{name} has {len(values)} numbers for {self.channels} channels: type one number, "
                    "or one for each channel"
                )
        if self.target_type == "masks" and self.num_classes > IGNORE_INDEX:
            errors.append(
                f"data.spec.class_names has {self.num_classes} names: masks hold {IGNORE_INDEX} classes at most"
            )
        if min(self.std, default=1) <= 0:
            errors.append(f"data.spec.std={list(self.std)}: type numbers above 0")
        if errors:
            raise ConfigurationError("\n".join(errors))

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Self:
        """Made of plain lists and numbers, as a YAML file holds them."""
        plain: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in values.items()}
        try:
            return cls(**plain)
        except TypeError as error:
            raise ConfigurationError(f"data.spec: {error}") from error
