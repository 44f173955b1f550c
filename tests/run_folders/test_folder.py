"""Run folders: names, contents, and errors of folders that are not runs."""

import json
from pathlib import Path

import pytest

from vision_lab.core.errors import ConfigurationError
from vision_lab.run_folders.folder import Run
from vision_lab.run_folders.naming import MAX_NAME_LENGTH, run_folder, safe_dir_name, sweep_folder

SPEC = {
    "target_type": "labels",
    "class_names": ["ash", "oak"],
    "num_classes": 2,
    "image_size": [8, 8],
    "channels": 3,
    "mean": [0.5],
    "std": [0.25],
}

RESULT = {
    "metrics": {"test/accuracy": 0.5},
    "per_class": {},
    "monitored": {"val/accuracy": 0.4},
    "measured_with": {},
}


def begun(folder: Path) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder)
    run.write_config(
        config="seed: 1\n",
        resolved="seed: 1\n",
        overrides=["seed=1"],
        choices={"model": "x"},
        spec=SPEC,
    )
    return run


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("model-resnet18_optim.lr-0.1", "model-resnet18_optim.lr-0.1"),
        ("", "job-3"),
    ],
)
def test_plain_names_stay(what: str, name: str):
    assert safe_dir_name(what, "job-3") == name


def test_special_characters_are_replaced_without_collisions():
    one, other = safe_dir_name("data.root-/a b/é"), safe_dir_name("data.root-/a/b/é")
    assert one.startswith("data.root-a-b-")
    assert one != other
    assert all(c.isascii() and (c.isalnum() or c in "._-") for c in one)
    long = safe_dir_name("x" * 300)
    assert len(long) == MAX_NAME_LENGTH
    assert long != safe_dir_name("x" * 301)


def test_run_folders_of_each_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    what = ("classify", "resnet18", "linear", "folder")
    assert run_folder("mine", *what, "train", None, None, "now") == "outputs/mine"
    assert (
        run_folder(None, *what, "train", None, None, "now")
        == "outputs/classify/resnet18-linear-folder/now"
    )
    assert run_folder("mine", *what, "train", None, "outputs/x", "now") == "outputs/x"
    evaluate = run_folder(None, *what, "evaluate", "outputs/mine", None, "now")
    assert evaluate == str(tmp_path / "outputs/mine/evaluate")
    assert run_folder(None, *what, "predict", None, None, "now") == str(
        tmp_path / "outputs/predict/now"
    )
    with pytest.raises(
        ConfigurationError,
        match="resume= continues a training: for mode=predict, type run=outputs/x",
    ):
        run_folder(None, *what, "predict", None, "outputs/x", "now")
    assert sweep_folder("mine", "classify", "now") == "outputs/mine"
    assert sweep_folder(None, "classify", "now") == "outputs/classify/sweep-now"


def test_states(tmp_path: Path):
    (tmp_path / "a").mkdir()
    run = Run(tmp_path / "a")
    assert (run.state, run.is_initialized) == (None, False)
    run.mark_pending()
    assert (run.state, run.is_initialized) == ("pending", False)
    run = begun(tmp_path / "a")
    assert run.is_initialized
    run.start()
    assert run.state == "running"
    assert {"host", "pid", "heartbeat", "time"} < set(run.status)
    run.fail(ValueError("first line\nsecond"))
    assert (run.state, run.error) == ("failed", "first line")
    run.finish(RESULT)
    assert run.state == "finished"
    assert run.result == RESULT
    assert run.choices == {"model": "x"}
    assert run.spec == SPEC
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["versions"]["torch"].startswith("2.")
    assert {"python", "platform", "cores", "command", "commit", "uncommitted"} < set(environment)


def test_folders_that_are_not_runs_are_refused(tmp_path: Path):
    begun(tmp_path / "sweep" / "a")
    begun(tmp_path / "sweep" / "b")
    with pytest.raises(ConfigurationError) as caught:
        Run.open(str(tmp_path / "sweep"))
    assert "this folder contains several runs; type one of" in str(caught.value)
    assert f"run={tmp_path / 'sweep' / 'a'}" in str(caught.value)
    with pytest.raises(
        ConfigurationError, match=r"there is no such folder; .* contains the runs a, b"
    ):
        Run.open(str(tmp_path / "sweep" / "c"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="this folder does not contain a run"):
        Run.open(str(tmp_path / "empty"))


@pytest.mark.parametrize("name", [7, 1e3, float("nan")])
def test_a_class_name_that_looks_like_a_number(name: object):
    assert safe_dir_name(name) == str(name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("status.json", "", "status.json is damaged: it is not JSON"),
        (
            "status.json",
            "[]",
            "status.json is damaged: it contains a list\nTo fix this, remove it and repeat the command",
        ),
        (
            "result.json",
            "{}",
            "result.json is damaged: metrics, per_class, monitored is missing or invalid",
        ),
        (
            "result.json",
            '{"metrics": {"a": "b"}, "per_class": {}, "monitored": {}}',
            "result.json is damaged: metrics",
        ),
        (
            "result.json",
            '{"metrics": {}, "per_class": {}, "monitored": {}}',
            "result.json is damaged: monitored",
        ),
        (
            "result.json",
            "[" * 100_000,
            "result.json is damaged: it is nested more than 50 levels deep",
        ),
        ("result.json", "x", "To fix this, type mode=evaluate run="),
        (
            "data_fingerprint.json",
            '{"train": "x"}',
            "data_fingerprint.json is damaged: it requires a mapping for each split",
        ),
        (
            "environment.json",
            '{"versions": 1}',
            "environment.json is damaged: versions is missing or invalid",
        ),
        (
            "data_spec.json",
            '{"a": 1}',
            "data_spec.json is invalid: target_type is missing",
        ),
    ],
)
def test_errors_of_damaged_files_say_how_to_fix_them(
    tmp_path: Path, file: str, content: str, text: str
):
    run = begun(tmp_path / "a")
    (run.folder / file).write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        [run.status, run.result, run.data, run.environment, run.spec]  # noqa: B018 - each is read from its file
    assert text in str(caught.value)
