"""``--help`` lists and describes every choice."""

from collections.abc import Callable

import pytest

from tests.builders import Outcome
from vision_lab.config.groups import CONFIG_DIR, find_groups


def test_help_lists_every_group_choice_and_summary(command: Callable[..., Outcome]):
    text = command("--help").out
    joined = " ".join(text.split())
    for group, choices in find_groups([CONFIG_DIR]).items():
        assert f"\n{group}" in text
        for choice in choices:
            assert f"{choice.name} {choice.summary}" in joined
    assert "model  (default: resnet20)" in text
    assert "--config-dir" in text


def test_help_describes_one_group(command: Callable[..., Outcome]):
    text = command("--help", "model").out
    assert "stem: auto  # imagenet: as published;" in text
    assert "data" not in text.splitlines()[0]
    assert "momentum: 0.9" in command("optimizer", "--help").out
    assert command("--help", "optimizer=sgd").out == command("--help", "optimizer").out


def test_an_unknown_group(command: Callable[..., Outcome]):
    outcome = command("--help", "modle")
    assert outcome.code == 2
    assert outcome.err.startswith(
        "error: there is no group modle. Did you mean mode or model? The groups are task, "
    )


def test_numbers_sort_as_numbers():
    names = [choice.name for choice in find_groups([CONFIG_DIR])["model"]]
    assert names.index("resnet18") < names.index("resnet101")


@pytest.mark.parametrize("words", [["-h"], ["model=resnet18", "--help"]])
def test_help_is_shown_regardless_of_other_words(command: Callable[..., Outcome], words: list[str]):
    assert command(*words).code == 0
