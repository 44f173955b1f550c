"""Display of text from untrusted sources: files, users of other machines, libraries.

Class names, file names and error messages may contain control characters that move the cursor of a
terminal or rename its window, and HTML markup. Whatever displays such text passes it through
``display_text``; Rich receives it as ``Text``, in which it does not interpret markup. Does not
import torch.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

Medium = Literal["terminal", "html"]

_INVISIBLE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Control, format, surrogate, private, unassigned, and line and paragraph separators."""

_KEPT = {"\n", "\t"}

_JOINERS = {"\u200c", "\u200d"}
"""Format characters that are part of words and emoji in many scripts."""


_MARKDOWN_SPECIAL = "\\`*_{}[]<>|#"
"""Characters of a text that Markdown would interpret."""


def display_text(text: Any, medium: Medium = "terminal") -> str:
    """Escape whatever in a text a terminal or a browser would interpret.

    Args:
        text: any object; converted by ``str``.
        medium: where the text is displayed. Control and direction characters are escaped in both,
            markup in ``html`` only.

    Returns:
        The text, with line breaks and tabs kept.
    """
    shown = "".join(_escape(character) for character in str(text))
    if medium == "html":
        return html.escape(shown, quote=True)
    return shown


def escape_markdown(text: str) -> str:
    """Escape whatever in a text Markdown or a terminal would interpret, as one line.

    Args:
        text: the text.
    """
    escaped = ""
    for character in display_text(text):
        escaped += f"\\{character}" if character in _MARKDOWN_SPECIAL else character
    return " ".join(escaped.split())


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def format_si(number: float) -> str:
    """Format a number with the prefix of its unit: ``"80.5 M"``."""
    for prefix in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.3g} {prefix}"
        number /= 1000
    return f"{number:.3g} T"


def shorten_middle(text: str, width: int) -> str:
    """Shorten a text by leaving out its middle, since both ends of a path distinguish it.

    Args:
        text: the text.
        width: maximum number of characters, at least 3.
    """
    if len(text) <= width:
        return text
    end = (width - 1) * 2 // 3
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def is_utf8(text: str) -> bool:
    """Return whether a text can be encoded as UTF-8; file names may contain other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def summarize_names(names: Sequence[str], limit: int) -> str:
    """Join the first names of a list for an error message.

    Args:
        names: the names.
        limit: maximum number of names to list.

    Returns:
        For example ``"a, b and 3 more"``.
    """
    shown = ", ".join(names[:limit])
    if len(names) > limit:
        return f"{shown} and {len(names) - limit} more"
    return shown


def _escape(character: str) -> str:
    if character.isprintable() or character in _KEPT or character in _JOINERS:
        return character
    if unicodedata.category(character) not in _INVISIBLE_CATEGORIES:
        return character  # unusual spaces
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}"
