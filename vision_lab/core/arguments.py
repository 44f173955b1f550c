"""Validation of plain values (from YAML or the command line) against type annotations.

Annotations give types, choices and ranges, all of which are checked before anything is built:

def __init__(self, *, width: Annotated[int, Range(ge=1)], action: Literal["warn", "stop"]) -> None

Does not import torch.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

MAX_WIDTH = 16_384
"""Maximum number of channels of a layer; more would exhaust the memory before an error is shown."""

INT64_LIMIT = 2**63
"""Integers of torch are smaller in absolute value."""

MAX_LISTED_CHOICES = 12
"""Maximum number of choices listed in an error message."""

MAX_VALUE_CHARACTERS = 200
"""Maximum length of a value in an error message."""

TYPE_DESCRIPTIONS = {
    None: "null",
    type(None): "null",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
}


@dataclass(frozen=True)
class Range:
    """The range of a number, for use in ``Annotated``.

    Attributes:
        ge: greater than or equal.
        le: less than or equal.
        gt: greater than.
        lt: less than.
        multiple_of: divisor of every valid value.
    """

    ge: float = -inf
    le: float = inf
    gt: float = -inf
    lt: float = inf
    multiple_of: int = 1

    def __contains__(self, value: float) -> bool:
        if not (self.ge <= value <= self.le and self.gt < value < self.lt):
            return False
        return self.multiple_of == 1 or value % self.multiple_of == 0

    def __str__(self) -> str:
        words = []
        if self.ge > -inf and self.le < inf:
            words.append(f"from {self.ge} to {self.le}")
        else:
            limits = {
                f"{self.ge} or more": self.ge > -inf,
                f"above {self.gt}": self.gt > -inf,
                f"at most {self.le}": self.le < inf,
                f"below {self.lt}": self.lt < inf,
            }
            for limit, is_set in limits.items():
                if is_set:
                    words.append(limit)
        if self.multiple_of > 1:
            words.append(f"a multiple of {self.multiple_of}")
        return ", ".join(words)


@dataclass(frozen=True)
class OneOf:
    """Choices that are looked up when needed, such as the strategies that Lightning has registered.

    Attributes:
        choices: function that returns the valid values.
    """

    choices: Callable[[], Iterable[str]]

    def __contains__(self, value: str) -> bool:
        return value in self.choices()

    def __str__(self) -> str:
        return _join_choices(sorted(self.choices()))


@dataclass(frozen=True)
class MinLength:
    """Minimum number of items in a list."""

    length: int

    def __contains__(self, value: Sequence[Any]) -> bool:
        return len(value) >= self.length


@dataclass(frozen=True)
class Hint:
    """Description of the valid values, replacing the one derived from the type."""

    text: str


Count = Annotated[int, Range(ge=1)]
Counts = Annotated[Sequence[Count], MinLength(1), Hint("a list of whole numbers of 1 or more")]
Width = Annotated[int, Range(ge=1, le=MAX_WIDTH)]
Fraction = Annotated[float, Range(ge=0, le=1)]
NonNegative = Annotated[float, Range(ge=0)]
Positive = Annotated[float, Range(gt=0)]


class ArgumentError(ValueError):
    """An argument that a model, head, dataset or task cannot use.

    Args:
        name: name of the argument.
        value: the invalid value.
        needed: the valid values, worded to follow "type".
    """

    def __init__(
        self,
        name: str,
        value: Any,
        needed: str,
    ) -> None:
        super().__init__(f"{name}={format_value(value)}: type {needed}")
        self.name, self.value, self.needed = name, value, needed


def check_value(
    key: str,
    value: Any,
    annotation: Any,
) -> str | None:
    """Check a plain value against an annotation.

    Args:
        key: dotted config key of the value, for the message.
        value: the value; see ``fits``.
        annotation: the annotation; see ``fits``.

    Returns:
        An error message that says what to type, or None if the value is valid.
    """
    if fits(value, annotation):
        return None
    return f"{key}={format_value(value)}: type {describe(annotation) or 'something else'}"


def fits(value: Any, annotation: Any) -> bool:
    """Return whether a plain value is valid for an annotation.

    Args:
        value: text, a number, a bool, None, or a list or mapping of these. A mapping with
            ``_target_`` stands for an object of any class: it fits every annotation but those of
            plain values.
        annotation: a type, possibly with limits: ``Annotated[int, Range(ge=1)]``. Classes that a
            plain value cannot be an instance of are not checked.
    """
    if annotation in (Any, inspect.Parameter.empty) or isinstance(annotation, str):
        return True
    if is_node(value):
        return not _is_plain(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _fits_annotated(value, arguments[0], arguments[1:])
    if origin in (Union, types.UnionType):
        return any(fits(value, member) for member in arguments)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if _is_sequence(origin or annotation):
        return isinstance(value, list | tuple) and _items_fit(value, origin, arguments)
    if _is_mapping(origin or annotation):
        return isinstance(value, Mapping) and _values_fit(value, arguments)
    return _is_instance(value, annotation)


def item_annotation(annotation: Any) -> Any:
    """Return the annotation of the values of a mapping, or of the mapping in a union.

    Args:
        annotation: the annotation; see ``fits``.

    Returns:
        Their annotation; None if there is no mapping in it.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return item_annotation(arguments[0])
    if origin in (Union, types.UnionType):
        for member in arguments:
            if item_annotation(member) is not None:
                return item_annotation(member)
    if _is_mapping(origin or annotation) and len(arguments) == 2:
        return arguments[1]
    return None


def is_node(value: Any) -> bool:
    """Return whether a plain value describes an object to instantiate."""
    return isinstance(value, Mapping) and "_target_" in value


def describe(annotation: Any) -> str:
    """Describe the valid values of an annotation, worded to follow "type"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe_annotated(arguments[0], arguments[1:])
    if origin in (Union, types.UnionType):
        return _describe_union(arguments)
    if origin is Literal:
        return _join_choices(_literal_choices(annotation))
    if _is_sequence(origin or annotation):
        return _describe_sequence(origin, arguments)
    if _is_mapping(origin or annotation):
        return "a mapping"
    return TYPE_DESCRIPTIONS.get(annotation, "")


def format_value(value: Any) -> str:
    """Format a plain value as on the command line, truncated to ``MAX_VALUE_CHARACTERS``."""
    if value is None or isinstance(value, bool):
        return {
            None: "null",
            True: "true",
            False: "false",
        }[value]
    if isinstance(value, list | tuple):
        text = f"[{','.join(format_value(item) for item in value[:MAX_VALUE_CHARACTERS])}]"
    else:
        text = _to_text(value)
    if len(text) <= MAX_VALUE_CHARACTERS:
        return text
    return f"{text[:MAX_VALUE_CHARACTERS]}..."


def _to_text(value: Any) -> str:
    try:
        return str(value)
    except ValueError:  # Python does not format integers of more than 4,300 digits
        return "a number of thousands of digits"


def _fits_annotated(
    value: Any,
    annotation: Any,
    details: Sequence[Any],
) -> bool:
    if not fits(value, annotation):
        return False
    limits = []
    for detail in details:
        if isinstance(detail, Range | OneOf | MinLength):
            limits.append(detail)
    return value is None or all(value in limit for limit in limits)


def _items_fit(
    value: Sequence[Any],
    origin: Any,
    item_types: tuple[Any, ...],
) -> bool:
    if not item_types:
        return True
    if origin is tuple and Ellipsis not in item_types:
        return len(value) == len(item_types) and all(map(fits, value, item_types))
    return all(fits(item, item_types[0]) for item in value)  # list[X] or tuple[X, ...]


def _values_fit(value: Mapping[str, Any], arguments: tuple[Any, ...]) -> bool:
    return not arguments or all(fits(item, arguments[1]) for item in value.values())


def _is_instance(value: Any, annotation: Any) -> bool:
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is bool:
        return isinstance(value, bool)
    if annotation is int:
        is_int = isinstance(value, int) and not isinstance(value, bool)
        return is_int and abs(value) < INT64_LIMIT
    if annotation is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and _is_finite(value)
    if annotation in (str, Path):
        return isinstance(value, str)
    # Any other class: a number or a text is never an instance of it; for the rest, nobody knows.
    return not isinstance(value, str | int | float) or isinstance(value, bool)


def _describe_annotated(annotation: Any, details: Sequence[Any]) -> str:
    description = describe(annotation)
    for detail in details:
        if isinstance(detail, Hint):
            return detail.text
        if isinstance(detail, OneOf):
            return str(detail)
        if isinstance(detail, Range):
            limits = str(detail)
            description += f" of {limits}" if limits[:1].isdigit() else f" {limits}"
    return description


def _describe_union(members: Sequence[Any]) -> str:
    choices = [_literal_choices(member) for member in members]
    if all(choices):
        return _join_choices([choice for group in choices for choice in group])
    descriptions = list(dict.fromkeys(filter(None, map(describe, members))))
    needs_comma = len(descriptions) != 2 or "," in descriptions[0]
    return (", or " if needs_comma else " or ").join(descriptions)


def _describe_sequence(origin: Any, arguments: Sequence[Any]) -> str:
    items = []
    for argument in arguments:
        if argument is not Ellipsis:
            items.append(describe(argument))
    if not items:
        return "a list"
    if origin is tuple and Ellipsis not in arguments:
        return f"[{','.join(items)}]"
    if items[0]:
        return f"a list, each {items[0]}"
    return "a list"


def _is_plain(annotation: Any) -> bool:
    """Return whether an annotation allows only numbers, text, bools, None and lists of these."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is_plain(arguments[0])
    if origin in (Union, types.UnionType):
        return all(map(_is_plain, arguments))
    if arguments and _is_sequence(origin):
        return all(_is_plain(argument) for argument in arguments if argument is not Ellipsis)
    return origin is Literal or annotation in TYPE_DESCRIPTIONS


def _is_sequence(type_: Any) -> bool:
    if not inspect.isclass(type_) or issubclass(type_, str | bytes):
        return False
    return issubclass(type_, Sequence | set)


def _is_mapping(type_: Any) -> bool:
    return inspect.isclass(type_) and issubclass(type_, Mapping)


def _is_finite(value: float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:
        return False


def _literal_choices(annotation: Any) -> list[str]:
    """Return the choices of a ``Literal`` or of None; an empty list for other annotations."""
    if annotation is type(None):
        return ["null"]
    if get_origin(annotation) is not Literal:
        return []
    return [format_value(choice) for choice in get_args(annotation)]


def _join_choices(choices: Sequence[str]) -> str:
    if len(choices) > MAX_LISTED_CHOICES:
        return f"one of {', '.join(choices[:MAX_LISTED_CHOICES])} ..."
    if len(choices) < 2:
        return "".join(choices)
    return f"{', '.join(choices[:-1])} or {choices[-1]}"
