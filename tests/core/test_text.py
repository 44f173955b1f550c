"""Text of others is displayed without control characters and markup."""

import pytest

from vision_lab.core.text import (
    display_text,
    first_line,
    format_si,
    is_utf8,
    shorten_middle,
    summarize_names,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 猫", "plain é 猫"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\u202eb", "a\\u202eb"),  # right-to-left override
        ("\udcff", "\\xff"),  # a byte of a file name that is not UTF-8
        ("न\u200dय", "न\u200dय"),  # a joiner is part of a word
        ("a\xa0b", "a\xa0b"),
    ],
)
def test_invisible_characters_are_escaped(text: str, shown: str):
    assert display_text(text) == shown


def test_markup_is_escaped_in_html_only():
    assert display_text("<b>&'") == "<b>&'"
    assert display_text("<b>&'", "html") == "&lt;b&gt;&amp;&#x27;"


def test_first_lines_of_errors():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(KeyError()) == "KeyError"


def test_long_lists_are_summarized():
    assert summarize_names(["a", "b"], 2) == "a, b"
    assert summarize_names(["a", "b", "c", "d"], 2) == "a, b and 2 more"


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 "), (999, "999 "), (216_400, "216 k"), (999_600, "1 M"), (2_612_000_000, "2.61 G")],
)
def test_prefixes_of_units(number: int, shown: str):
    assert format_si(number) == shown


def test_names_that_are_not_utf8():
    assert is_utf8("é")
    assert not is_utf8("\udcff")


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("short.png", 20, "short.png"),
        ("photographs/2026/november/cat_0001.png", 20, "photogr…cat_0001.png"),
        ("abcdef", 3, "a…f"),
    ],
)
def test_long_texts_lose_their_middle(text: str, width: int, expected: str):
    assert shorten_middle(text, width) == expected
    assert len(shorten_middle(text, width)) <= width
