"""Packages that are trusted in every command."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import FAST, Outcome
from vision_lab.config.trusted_packages import remember_packages, remembered_packages, trust_file
from vision_lab.core.errors import ConfigurationError

Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_packages_are_added_once():
    assert remembered_packages() == []
    remember_packages(["one", "two"])
    remember_packages(["two", "three"])
    assert remembered_packages() == ["one", "two", "three"]
    assert trust_file().read_text() == "- one\n- two\n- three\n"


@pytest.mark.parametrize("content", ["one: two", "- 1", "[", "- ''"])
def test_a_file_that_is_no_list_is_named(content: str):
    trust_file().parent.mkdir(parents=True)
    trust_file().write_text(content)
    with pytest.raises(ConfigurationError, match=r"trust\.yaml .*fix or remove it"):
        remembered_packages()


def test_a_command_remembers_if_it_says_so(command: Command, tmp_path: Path):
    (tmp_path / "own_net.py").write_text(
        "from torch import nn\n\n\ndef net(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), "
        "nn.Linear(8, num_classes))\n"
    )
    words = (
        *FAST[:-1],
        "model=resnet18",
        "model.network._target_=own_net.net",
        "model.stem=imagenet",
    )
    assert command(*words, "name=x").code == 0
    evaluate = ("mode=evaluate", "run=outputs/x")
    refused = command(*evaluate)
    assert "type trust=[own_net]" in refused.err
    assert command(*evaluate, "trust=[own_net]").code == 0
    assert command(*evaluate).code == 2
    assert command(*evaluate, "trust=[own_net]", "remember=true").code == 0
    assert remembered_packages() == ["own_net"]
    assert command(*evaluate).code == 0
