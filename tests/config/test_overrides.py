"""Path values of any characters reach Hydra unchanged."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from vision_lab.config.overrides import flags_before_overrides, last_value, overrides, quote_paths


def read_by_hydra(word: str) -> object:
    return OverridesParser.create().parse_override(quote_paths([word])[0]).value()


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


def test_home_is_expanded_and_existing_paths_are_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").mkdir()
    assert read_by_hydra("data.root=~/my data") == "/home/me/my data"
    assert read_by_hydra("data.root=./a b") == str(tmp_path / "a b")
    assert read_by_hydra("run=somewhere/else") == "somewhere/else"


def test_words_that_are_no_paths_stay():
    assert quote_paths(
        ["model.weights=null", "data.root=???", "optimizer.lr=0.1", "seed=1,2", "run='x y'"]
    ) == [
        "model.weights=null",
        "data.root=???",
        "optimizer.lr=0.1",
        "seed=1,2",
        "run='x y'",
    ]
    assert read_by_hydra("model.weights=imagenet") == "imagenet"


def test_in_a_sweep_commas_separate_unless_the_path_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert quote_paths(["-m", "model.weights=null,a b.pth"])[1] == "model.weights=null,'a b.pth'"
    (tmp_path / "a,b").mkdir()
    assert quote_paths(["-m", "data.root=a,b"])[1] == "data.root='a,b'"
    assert quote_paths(["data.root=c,d"]) == ["data.root='c,d'"]


def test_values_and_flags():
    words = ["seed=1", "--cfg", "job", "-m", "run='it\\'s'", "--config-dir", "a=b", "model=x"]
    assert overrides(words) == ["seed=1", "run='it\\'s'", "model=x"]
    assert flags_before_overrides(words) == [
        "--cfg",
        "job",
        "-m",
        "--config-dir",
        "a=b",
        "seed=1",
        "run='it\\'s'",
        "model=x",
    ]
    assert last_value(words, "run") == "it's"
    assert last_value(words, "source") is None
