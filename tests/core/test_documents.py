"""YAML and JSON files of others are plain values, within limits."""

from pathlib import Path

import pytest

from vision_lab.core.documents import MAX_DEPTH, DocumentError, dump_yaml, read_json, read_yaml


def test_plain_values_are_read_and_written(tmp_path: Path):
    values = {"a": [1, 2.5, True, None, "é"], "b": {"c": "x: y"}}
    (tmp_path / "a.yaml").write_text(dump_yaml(values), encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == values


def test_repeated_objects_are_written_as_copies():
    shared = [1, 2]
    assert dump_yaml({"a": shared, "b": shared}) == "a:\n- 1\n- 2\nb:\n- 1\n- 2\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x\n", r"uses the alias \*x: write the value instead"),
        ("a: 2020-01-01\n", "contains a date, 2020-01-01: put it in quotes"),
        ("a: !!python/name:os.system\n", "it is not YAML: "),
        ("a: [1\n", "it is not YAML: "),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"more than {MAX_DEPTH} levels deep"),
    ],
)
def test_other_yaml_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(DocumentError, match=message):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{'a': 1}", "it is not JSON: "),
        (b"\xff\xfe", "it is not UTF-8: invalid start byte at byte 0"),
        (b"[" * 100_000, f"more than {MAX_DEPTH} levels deep"),
        (b'"' + b"x" * 200 + b'"', "it has more than 100 bytes"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "a.json").write_bytes(content)
    limit = 100 if b"x" in content else 1_000_000
    with pytest.raises(DocumentError, match=message):
        read_json(tmp_path / "a.json", max_bytes=limit)
