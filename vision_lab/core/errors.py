"""Errors that the user can fix, and files that cannot be read."""

from __future__ import annotations

from typing import NamedTuple


class UserError(Exception):
    """Something its user can mend: shown as its text alone, without a traceback."""


class ConfigurationError(UserError):
    """What was asked for cannot work: says what came, what is needed, what to type."""


class DataError(UserError):
    """A data set or a picture cannot be used: names the files."""


class UnreadableFile(NamedTuple):
    """A file that should hold a picture or its target and does not."""

    path: str
    reason: str


class AnnotationIssue(NamedTuple):
    """What is wrong with a picture's annotation, and what was done about it."""

    path: str
    """The picture."""
    source: str
    """The file that says it."""
    problem: str


class UnreadableFileError(Exception):
    """A file that should hold a picture or its target and does not.

    Args:
        path: which.
        reason: why.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.unreadable = UnreadableFile(path, reason)
