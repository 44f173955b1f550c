"""Text that comes from files or from strangers, made harmless for where it is shown. No torch here.

Class names, file names and error messages of libraries may hold control characters that move a terminal's cursor or
rename its window, and marks that HTML would follow. Whatever shows such text calls ``display_text``; Rich gets it as
``Text``, in which it reads no marks.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

Medium = Literal["terminal", "html"]

_INVISIBLE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Control, format (direction marks), surrogate, private, unassigned, and the separators of lines and paragraphs."""

_KEPT = {"\n", "\t"}

_JOINERS = {"\u200c", "\u200d"}
"""Format characters that belong to words and emoji of many scripts."""


def display_text(text: Any, medium: Medium = "terminal") -> str:
    """Make a text harmless to show, and otherwise leave it as it is.

    Args:
        text: anything; its ``str`` is taken.
        medium: where it is shown. Control and direction characters are written as escapes everywhere; in ``html`` the
            marks are escaped too.

    Returns:
        The text; lines and tabs stay.
    """
    shown = "".join(_escape(character) for character in str(text))
    return html.escape(shown, quote=True) if medium == "html" else shown


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_utf8(text: str) -> bool:
    """Return whether a name can be written as UTF-8; names of files may hold other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escape(character: str) -> str:
    if character.isprintable() or character in _KEPT or character in _JOINERS:
        return character
    if unicodedata.category(character) not in _INVISIBLE_CATEGORIES:
        return character  # unusual spaces
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a file's name that is not UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def summarize_names(names: Sequence[str], most: int) -> str:
    """The first of many names, and how many more there are, for an error."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
