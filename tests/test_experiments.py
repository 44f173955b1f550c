"""The configs and commands of ``experiments/`` are valid."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import Outcome

Command = Callable[..., Outcome]

EXPERIMENTS = Path(__file__).parent.parent / "experiments"

CRASH = runpy.run_path(str(EXPERIMENTS / "crash" / "crash.py"))


def assert_only_error(outcome: Outcome, error: str) -> None:
    """Check that all values but one are valid: errors are reported together."""
    assert outcome.code == 1
    assert outcome.err == f"error: {error}\n"


@pytest.mark.parametrize("case", CRASH["CASES"])
def test_commands_of_the_crash_study(case: str, command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXPERIMENTS / "crash")
    outcome = command(*CRASH["COMMON"], *CRASH["CASES"][case].split(), "name=x", "seed=-1")
    assert_only_error(outcome, "seed=-1: type a whole number from 0 to 4294967295")


def test_the_network_of_the_speed_study(
    command: Command, monkeypatch: pytest.MonkeyPatch, make_folder: Callable[..., Path]
):
    monkeypatch.syspath_prepend(EXPERIMENTS / "speed")
    words = ("--config-dir", str(EXPERIMENTS / "speed" / "conf"), "model=tiny", "data=folder")
    outcome = command(*words, f"data.root={make_folder()}", "augment=imagenet", "seed=-1")
    assert_only_error(outcome, "seed=-1: type a whole number from 0 to 4294967295")
