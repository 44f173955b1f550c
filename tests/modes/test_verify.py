"""``mode=verify``: exit codes and messages."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import FAST, Outcome
from vision_lab.core.errors import ConfigurationError
from vision_lab.modes.verify import Expectation, parse_expectations

Command = Callable[..., Outcome]


def test_a_run_is_verified(command: Command):
    assert command(*FAST, "name=x").code == 0
    words = ("mode=verify", "run=outputs/x")
    assert command(*words).code == 0
    reported = json.loads(Path("outputs/x/result.json").read_text())["metrics"]["test/loss"]
    passed = command(*words, f"mode.expect=test/loss<={reported + 0.01},test/accuracy>=0")
    assert passed.code == 0, passed.err
    assert "as expected" in passed.out
    failed = command(*words, f"mode.expect=test/loss<{reported - 0.01}")
    assert failed.code == 1
    assert f"test/loss is {reported:.6g}, not < " in failed.err
    assert "Traceback" not in failed.err
    unknown = command(*words, "mode.expect=test/miou>0.5")
    assert unknown.code == 1
    assert (
        "mode.expect=test/miou: there is no such metric: type one of test/accuracy" in unknown.err
    )
    result = Path("outputs/x/result.json")
    content = json.loads(result.read_text())
    content["metrics"]["test/loss"] += 0.1
    result.write_text(json.dumps(content))
    changed = command(*words)
    assert changed.code == 1
    assert f"test/loss is {reported:.6g}, and was {reported + 0.1:.6g}" in changed.err
    assert command(*words, "mode.tolerance=0.2").code == 0


def test_expectations():
    assert parse_expectations("test/accuracy>=0.89, val/loss < 1e-2") == [
        Expectation("test/accuracy", ">=", 0.89),
        Expectation("val/loss", "<", 0.01),
    ]


@pytest.mark.parametrize("text", ["accuracy", "accuracy=0.9", ">=0.9", "accuracy>=high", "a>=1,"])
def test_invalid_expectations(text: str):
    with pytest.raises(ConfigurationError, match="type a metric, one of >=, <=, >, <, and a numb"):
        parse_expectations(text)
