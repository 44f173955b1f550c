"""Configs are resolved once, into plain values."""

from omegaconf import OmegaConf

from vision_lab.config.resolution import (
    FileStrings,
    Unresolved,
    find_unresolved,
    resolve_config,
    to_printable,
)


def test_values_become_plain_and_know_their_origin():
    config = resolve_config(OmegaConf.create({"a": {"lr": 0.1, "names": ["x"]}, "b": "${a.lr}"}))
    assert config.values == {"a": {"lr": 0.1, "names": ["x"]}, "b": 0.1}
    assert type(config["a"]) is dict
    assert type(config["a"]["names"]) is list
    assert (config.origin("b"), config.origin("a.lr")) == ("a.lr", "a.lr")


def test_a_changed_value_changes_where_it_is_interpolated():
    config = resolve_config(OmegaConf.create({"a": {"n": 1}, "b": {"n": "${a.n}"}, "c": "${b.n}"}))
    changed = config.updated({"a.n": 2})
    assert changed.values == {"a": {"n": 2}, "b": {"n": 2}, "c": 2}
    assert config["a"]["n"] == 1


def test_unresolved_values_keep_their_reason():
    config = resolve_config(OmegaConf.create({"a": "???", "b": "${a}", "c": "${nowhere}"}))
    assert config["a"] == Unresolved("is missing")
    assert config["b"] == Unresolved(None)  # the error is that of `a`
    assert config["c"].reason.startswith("cannot be resolved: ")
    assert find_unresolved({"x": config["a"]}, "group") == ["group.x is missing: type group.x=..."]
    assert to_printable(config.values) == {"a": "???", "b": "???", "c": "???"}


def test_strings_of_files_are_never_resolved():
    names = ["${oc.env:HOME}", "\\${a}", "???", "plain"]
    OmegaConf.register_new_resolver("test_names", lambda: FileStrings(names), replace=True)
    config = OmegaConf.create({"a": 1, "names": "${test_names:}", "copy": "${names}"})
    resolved = resolve_config(config)
    assert resolved["names"] == resolved["copy"] == names


def test_a_reference_to_itself_is_refused():
    config = resolve_config(OmegaConf.create({"a": {"b": "${a}"}}))
    assert config["a"]["b"].reason == "cannot be resolved: Interpolation to parent node detected"
