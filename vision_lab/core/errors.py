"""Errors that the user can fix, and records of files and annotations that cannot be used."""

from __future__ import annotations

from typing import NamedTuple


class UserError(Exception):
    """An error that the user can fix; shown as its message alone, without a traceback.

    Args:
        message: the message. Torch puts a traceback before it in processes that load data, which is
            left out.
    """

    def __init__(self, message: str = "") -> None:
        if message.startswith("Caught "):
            message = message.rpartition(f".{type(self).__name__}: ")[2].rstrip()
        super().__init__(message)


class ConfigurationError(UserError):
    """An invalid configuration; the message names the value, what is required and what to type."""


class DataError(UserError):
    """A dataset or image that cannot be used; the message names the files."""


class UnreadableFile(NamedTuple):
    """A file that does not contain a valid image or target."""

    path: str
    reason: str


class AnnotationIssue(NamedTuple):
    """A problem in the annotation of an image, and how it was handled."""

    path: str
    """Path of the image."""
    source: str
    """Path of the annotation file."""
    problem: str


class UnreadableFileError(Exception):
    """Raised by a dataset for a sample whose file does not contain a valid image or target.

    Args:
        path: path of the file.
        reason: why it cannot be used.
    """

    def __init__(
        self,
        path: str,
        reason: str,
    ) -> None:
        super().__init__(f"{path}: {reason}")
        self.unreadable = UnreadableFile(path, reason)
