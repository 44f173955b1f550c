"""Printed lines contain no markup and no control characters."""

import logging
import warnings

import pytest

from vision_lab.core import console


def test_lines_are_printed_as_text(capsys: pytest.CaptureFixture[str]):
    console.print_line("a [bold]name[/bold] \x1b[31m and 12")
    console.print_warning("see [link=x]y[/link]")
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "a [bold]name[/bold] \\x1b[31m and 12",
        "warning: see [link=x]y[/link]",
    ]


def test_known_warnings_are_hidden_and_others_are_not():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        console.silence_libraries()
        warnings.warn("The dataloader does not have many workers which", stacklevel=1)
        warnings.warn("something new", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["something new"]
    assert logging.getLogger("pytorch_lightning").level == logging.WARNING
