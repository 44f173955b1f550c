"""Paths with any characters reach Hydra unchanged."""

from pathlib import Path

import pytest

from vision_lab.config.groups import CONFIG_DIR, find_path_keys
from vision_lab.config.overrides import CommandLine
from vision_lab.core.errors import ConfigurationError


def read_by_hydra(word: str) -> object:
    return CommandLine.parse([word]).parsed[0].value()


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "with space",
        "a=b",
        "a,b",
        "#1",
        "(x)",
        "é",
        "it's",
        'a"b',
        "back\\slash",
        "end\\",
        "back\\'quote",
        "[x]y{z}",
        "a:b",
        "*.jpg",
        "100%",
        "~other",
    ],
)
def test_any_character(value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    for key in ("run", "source", "data.root", "model.weights"):
        if value.startswith("["):
            continue
        assert read_by_hydra(f"{key}=/x/{value}") == f"/x/{value}"


def test_the_home_of_a_user_who_does_not_exist_is_named():
    with pytest.raises(ConfigurationError, match="~nobody_here is no user with a home folder"):
        read_by_hydra("data.root=~nobody_here/images")


def test_home_is_expanded_and_existing_paths_are_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").mkdir()
    assert read_by_hydra("data.root=~/my data") == "/home/me/my data"
    assert read_by_hydra("data.root=./a b") == str(tmp_path / "a b")
    assert read_by_hydra("run=somewhere/else") == "somewhere/else"


def test_words_that_are_not_paths_stay():
    words = ["model.weights=null", "data.root=???", "optimizer.lr=0.1", "seed=1,2", "run='x y'"]
    assert CommandLine.parse(words).overrides == tuple(words)
    assert read_by_hydra("model.weights=imagenet") == "imagenet"


def test_commas_separate_paths_in_a_sweep_unless_the_path_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert (
        CommandLine.parse(["-m", "model.weights=null,a b.pth"]).overrides[0]
        == "model.weights=null,'a b.pth'"
    )
    (tmp_path / "a,b").mkdir()
    assert CommandLine.parse(["-m", "data.root=a,b"]).overrides[0] == "data.root='a,b'"
    assert CommandLine.parse(["data.root=c,d"]).overrides == ("data.root='c,d'",)


def test_words_are_split_into_flags_and_overrides():
    words = ["seed=1", "--cfg", "job", "-m", "run='it\\'s'", "--config-dir", "a=b", "model=x"]
    command = CommandLine.parse(words)
    assert command.overrides == ("seed=1", "run='it\\'s'", "model=x")
    assert command.flags == ("--cfg", "job", "-m", "--config-dir", "a=b")
    assert command.words == [*command.flags, *command.overrides]
    assert command.single_run_flags == ["--cfg", "job", "--config-dir", "a=b"]
    assert command.keys == ["seed", "run", "model"]
    assert command.is_sweep
    assert not command.shows_resolved_job


def test_values_of_keys_and_flags():
    command = CommandLine.parse(
        ["seed=1", "run='it\\'s'", "--cfg=job", "--resolve", "-cd", "my/conf"]
    )
    assert command.last_value("run") == "it's"
    assert command.last_value("source") is None
    assert command.flag_value("--cfg", "-c") == "job"
    assert command.flag_value("--package", "-p") is None
    assert command.config_folders == [CONFIG_DIR, Path("my/conf")]
    assert command.shows_resolved_job
    assert not command.is_sweep


def test_overrides_without_effect_are_not_compared():
    command = CommandLine.parse(["experiment=null", "debug=fast", "model=x"])
    assert command.overrides == ("debug=fast", "model=x")


def test_keys_of_paths_are_marked_in_yaml(tmp_path: Path):
    assert find_path_keys((CONFIG_DIR,)) == frozenset(
        "run runs resume source data.root data.groups model.weights head.weights features.folder features.weights mode.shards".split()
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(
        "root: ???  # path of the images\nlists:\n  extra: null  # path: a list\nother: 1  # no path\n"
    )
    words = ["--config-dir", str(tmp_path), "data.lists.extra=/a (b)/c,d"]
    assert CommandLine.parse(words).parsed[0].value() == "/a (b)/c,d"
    assert find_path_keys((tmp_path,)) == {"data.root", "data.lists.extra"}
