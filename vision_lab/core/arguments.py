"""What a value may be, said by annotations: types, choices and ranges, checked before anything is built. No torch here.

def __init__(self, *, width: Annotated[int, Range(1, multiple_of=8)], action: Literal["warn", "stop"]) -> None: ...
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from vision_lab.core.errors import ConfigurationError

MAX_WIDTH = 16_384
"""Channels of a layer: more are a mistake, and would fill the memory before anybody could say so."""

INT64_LIMIT = 2**63
"""Whole numbers of torch lie below it."""

SHOWN_CHOICES = 12
"""Choices that an error names."""


@dataclass(frozen=True)
class Range:
    """The numbers that an argument takes.

    Attributes:
        least: the smallest.
        most: the largest.
        above: all are larger.
        below: all are smaller.
        multiple_of: all are multiples of it.
    """

    least: float = -inf
    most: float = inf
    above: float = -inf
    below: float = inf
    multiple_of: int = 1

    def __contains__(self, value: float) -> bool:
        if not (self.least <= value <= self.most and self.above < value < self.below):
            return False
        return self.multiple_of == 1 or value % self.multiple_of == 0

    def __str__(self) -> str:
        low = (
            f"{self.least} or more"
            if self.least > -inf
            else f"above {self.above}"
            if self.above > -inf
            else ""
        )
        high = (
            f"at most {self.most}"
            if self.most < inf
            else f"below {self.below}"
            if self.below < inf
            else ""
        )
        if self.least > -inf and self.most < inf:
            low, high = f"from {self.least} to {self.most}", ""
        multiple = f"a multiple of {self.multiple_of}" if self.multiple_of > 1 else ""
        return ", ".join(words for words in (low, high, multiple) if words)


@dataclass(frozen=True)
class OneOf:
    """Texts that are known only once they are asked for, such as the strategies of a library."""

    choices: Callable[[], Iterable[str]]

    def __contains__(self, value: str) -> bool:
        return value in self.choices()

    def __str__(self) -> str:
        return _list_choices(sorted(self.choices()))


@dataclass(frozen=True)
class Length:
    """How many values a list has at least."""

    least: int

    def __contains__(self, value: Sequence[Any]) -> bool:
        return len(value) >= self.least


@dataclass(frozen=True)
class Hint:
    """What to type for an argument, where its type alone would not say it well."""

    text: str


Count = Annotated[int, Range(least=1)]
Counts = Annotated[Sequence[Count], Length(1), Hint("a list of whole numbers of 1 or more")]
Width = Annotated[int, Range(least=1, most=MAX_WIDTH)]
Fraction = Annotated[float, Range(least=0, most=1)]
NonNegative = Annotated[float, Range(least=0)]
Positive = Annotated[float, Range(above=0)]


SHOWN_CHARACTERS = 200
"""Of a value, in an error."""


class ArgumentError(ValueError):
    """An argument that a part cannot work with.

    Args:
        name: the argument.
        value: what came.
        needed: what is needed, to be read after "type".
    """

    def __init__(self, name: str, value: Any, needed: str) -> None:
        super().__init__(f"{name}={value}: type {needed}")
        self.name, self.value, self.needed = name, value, needed


def fits(value: Any, annotation: Any) -> bool:
    """Return whether a plain value is what an annotation says.

    Args:
        value: text, a number, true, false, null, or a list or mapping of these. A mapping with ``_target_`` is of
            whatever class it names, and fits all but numbers, text and lists of these.
        annotation: a type, with ranges as ``Annotated[int, Range(1)]``. Classes that no plain value can be are not
            checked.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (Any, inspect.Parameter.empty) or isinstance(annotation, str):
        return True
    if is_node(value):
        return not _is_plain(annotation)
    if origin is Annotated:
        limits = [limit for limit in arguments[1:] if isinstance(limit, Range | OneOf | Length)]
        return fits(value, arguments[0]) and all(
            value is None or value in limit for limit in limits
        )
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in arguments)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in arguments)
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is bool:
        return isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < INT64_LIMIT
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    if annotation in (str, Path):
        return isinstance(value, str)
    if _is_sequence(origin or annotation):
        return isinstance(value, list | tuple) and _items_fit(value, origin, arguments)
    if _is_mapping(origin or annotation):
        return isinstance(value, Mapping) and all(
            fits(each, arguments[1]) for each in value.values() if arguments
        )
    return _may_be_an_object(value)


def is_node(value: Any) -> bool:
    """Return whether a plain value describes an object that is to be built."""
    return isinstance(value, Mapping) and "_target_" in value


def describe(annotation: Any) -> str:
    """Say what an annotation admits, to be read after "type"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe_annotated(arguments[0], arguments[1:])
    if origin in (Union, types.UnionType):
        choices = [_list_literals(each) for each in arguments]
        if all(choices):
            return _list_choices([choice for listed in choices for choice in listed])
        said = list(dict.fromkeys(words for words in map(describe, arguments) if words))
        return (" or " if len(said) == 2 and "," not in said[0] else ", or ").join(said)
    if origin is Literal:
        return _list_choices(_list_literals(annotation))
    if _is_sequence(origin or annotation):
        kinds = [each for each in arguments if each is not Ellipsis]
        if origin is tuple and Ellipsis not in arguments and kinds:
            return f"[{','.join(describe(each) for each in kinds)}]"
        return f"a list, each {describe(kinds[0])}" if kinds and describe(kinds[0]) else "a list"
    names = {
        None: "null",
        type(None): "null",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
    }
    if _is_mapping(origin or annotation):
        return "a mapping"
    return names.get(annotation, "")


def check_value(path: str, value: Any, annotation: Any) -> str | None:
    """Return what is wrong with a value and what to type, or None.

    Args:
        path: the dotted key that the value was typed for.
        value: see ``fits``.
        annotation: likewise.
    """
    if fits(value, annotation):
        return None
    return f"{path}={format_value(value)}: type {describe(annotation) or 'something else'}"


def format_value(value: Any) -> str:
    """Format a plain value as it is typed, cut after ``SHOWN_CHARACTERS``."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        text = f"[{','.join(format_value(each) for each in value[:SHOWN_CHARACTERS])}]"
    else:
        text = _text(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _text(value: Any) -> str:
    try:
        return str(value)
    except ValueError:  # a number of more digits than Python writes
        return "a number of thousands of digits"


def parameters_of(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """List the parameters of a function or class by name, and whether it takes any others.

    Of a class that hands ``**arguments`` on to its base classes, theirs are included.

    Raises:
        ValueError, TypeError: if it does not say them, as some functions in C.
    """
    if not inspect.isclass(target):
        return _own_parameters(target)
    found, takes_others = _own_parameters(target)
    for base in target.__mro__[1:]:
        if not takes_others or base is object:
            break
        if "__init__" in vars(base):
            inherited, takes_others = _own_parameters(vars(base)["__init__"])
            inherited.pop("self", None)
            found = {**inherited, **found}
    return found, takes_others


def _own_parameters(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    parameters = inspect.signature(target).parameters.values()
    names = _names_of(target)
    named = {
        p.name: p.replace(annotation=_evaluate(p.annotation, names))
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _names_of(target: Callable[..., Any]) -> dict[str, Any]:
    """What the annotations of a function or class may refer to."""
    function: Any = inspect.unwrap(
        vars(target).get("__init__", target) if inspect.isclass(target) else target
    )
    names: dict[str, Any] = getattr(function, "__globals__", {})
    return names


def _evaluate(annotation: Any, names: dict[str, Any]) -> Any:
    """An annotation that is kept as text, evaluated; as it is where it names what only a type checker imports."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(
            annotation, names
        )  # our own code and that of installed packages, never a config's
    except (NameError, AttributeError, TypeError, SyntaxError):
        return annotation


def _describe_annotated(kind: Any, details: Sequence[Any]) -> str:
    words = describe(kind)
    for detail in details:
        if isinstance(detail, Hint):
            return detail.text
        if isinstance(detail, OneOf):
            return str(detail)
        if isinstance(detail, Range):
            words += f" of {detail}" if str(detail)[:1].isdigit() else f" {detail}"
    return words


def _items_fit(value: Sequence[Any], origin: Any, arguments: tuple[Any, ...]) -> bool:
    if origin is tuple and arguments and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    return all(fits(each, arguments[0]) for each in value) if arguments else True


def _is_plain(annotation: Any) -> bool:
    """Return whether an annotation admits numbers, text, true, false, null and lists of these alone."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is_plain(arguments[0])
    if arguments and _is_sequence(origin):
        return all(_is_plain(each) for each in arguments if each is not Ellipsis)
    if origin in (Union, types.UnionType):
        return all(map(_is_plain, arguments))
    return origin is Literal or annotation in (None, type(None), bool, int, float, str, Path)


def _is_sequence(kind: Any) -> bool:
    return (
        inspect.isclass(kind)
        and issubclass(kind, Sequence | set)
        and not issubclass(kind, str | bytes)
    )


def _is_mapping(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, Mapping)


def _may_be_an_object(value: Any) -> bool:
    """Whether a value may stand for an object of a class, a function or a type variable: no number or text does."""
    return not isinstance(value, str | int | float) or isinstance(value, bool)


def _is_finite(value: float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:
        return False


def _list_literals(annotation: Any) -> list[str]:
    """The values of an annotation that names each of them; none of any other."""
    if annotation is type(None):
        return ["null"]
    return (
        [format_value(each) for each in get_args(annotation)]
        if get_origin(annotation) is Literal
        else []
    )


def _list_choices(names: Sequence[str]) -> str:
    if len(names) > SHOWN_CHOICES:
        return f"one of {', '.join(names[:SHOWN_CHOICES])} ..."
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def check_number(key: str, value: Any, *, least: float = 0.0) -> float:
    """A finite number as a user typed it.

    Raises:
        ConfigurationError: where it is none, or less than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < inf:
        raise ConfigurationError(f"{key}={value}: type a number of {least:g} or more")
    return float(value)


def check_int(key: str, value: Any, *, least: int = 1, multiple_of: int = 1) -> int:
    """A whole number as a user typed it.

    Raises:
        ConfigurationError: where it is none, less than ``least``, or no multiple of ``multiple_of``.
    """
    if type(value) is not int or value < least:
        raise ConfigurationError(f"{key}={value}: type a whole number of {least} or more")
    if value % multiple_of:
        raise ConfigurationError(f"{key}={value}: type a multiple of {multiple_of}")
    return value


def check_ints(key: str, values: Any) -> list[int]:
    """A list of whole numbers of 1 or more as a user typed it, not empty.

    Raises:
        ConfigurationError: where it is none, or holds anything else.
    """
    listed = isinstance(values, Sequence) and not isinstance(values, str)
    if not listed or not values or any(type(value) is not int or value < 1 for value in values):
        shown = list(values) if listed else values
        raise ConfigurationError(f"{key}={shown}: type a list of whole numbers of 1 or more")
    return list(values)
