"""What repeating a command does, and what another command with the same name does."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.builders import FAST, Outcome
from vision_lab.core.errors import ConfigurationError, DataError
from vision_lab.run_folders.folder import Run
from vision_lab.run_folders.resume import (
    check_data_unchanged,
    find_config_differences,
    find_progress,
)
from vision_lab.training.checkpoint_io import load, save

Command = Callable[..., Outcome]
CONFIG = {
    "name": "x",
    "force": False,
    "optimizer": {"lr": 0.1},
    "data": {"num_workers": 0, "root": "/here", "spec": {"class_names": "${names}"}},
    "names": ["a", "b"],
}


def config(**changes: object) -> str:
    return OmegaConf.to_yaml(OmegaConf.merge(CONFIG, changes))


def begun(folder: Path, **changes: object) -> Run:
    run = Run(folder)
    text = OmegaConf.to_yaml(OmegaConf.create(CONFIG | changes))
    folder.mkdir(parents=True)
    run.mark_pending()
    run.write_config(
        config=text, resolved=text, overrides=["name=x"], choices={"model": "y"}, spec={}
    )
    return run


def test_the_distance_of_a_checkpoint_in_steps(tmp_path: Path):
    assert find_progress(Run(tmp_path / "none"), config()) == "new"
    run = begun(tmp_path / "x")
    assert find_progress(run, config()) == "started"
    run.fail(ValueError("broke"))
    assert find_progress(run, config()) == "started"
    run.finish({"metrics": {}})
    assert find_progress(run, config()) == "finished"
    assert find_progress(run, config(), force=True) == "new"


def test_settings_that_do_not_change_results_are_not_compared(tmp_path: Path):
    run = begun(tmp_path / "x")
    free = {
        "name": "z",
        "trust": ["mine"],
        "data": {"num_workers": 3, "root": "/there"},
        "mode": {"_target_": "t"},
    }
    assert find_config_differences(run, config(**free)) == {}
    other = config(optimizer={"lr": 0.2, "momentum": 0.9}, names=["a", "c"])
    assert find_config_differences(run, other) == {
        "optimizer.lr": (0.1, 0.2),
        "names": (["a", "b"], ["a", "c"]),
        "optimizer.momentum": ("nothing", 0.9),
    }


def test_another_config_is_refused_with_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run = begun(Path("outputs/x"))
    with pytest.raises(ConfigurationError) as caught:
        find_progress(run, config(optimizer={"lr": 0.2}))
    assert str(caught.value) == (
        "outputs/x holds a pending run of another config:\n"
        "  optimizer.lr: 0.1 in the run, 0.2 now\n"
        "Type another name=; or resume=outputs/x to continue with its config; or force=true to "
        "start over (the old folder is kept)."
    )
    many = {f"key{number}": number for number in range(14)}
    with pytest.raises(
        ConfigurationError, match="  key11: nothing in the run, 11 now\n  and 2 more\nType another"
    ):
        find_progress(run, config(**many))


def test_changed_data_is_detected(tmp_path: Path):
    run = begun(tmp_path / "x")
    data = {
        "train": {"count": 5, "labels": "aa", "files": "bb"},
        "val": {"count": 1, "labels": "cc"},
    }
    check_data_unchanged(run, data)  # nothing to compare with
    run.write_data_fingerprint(data)
    check_data_unchanged(run, data)
    with pytest.raises(DataError) as caught:
        check_data_unchanged(run, data | {"train": {"count": 6, "labels": "aa", "files": "dd"}})
    assert "  train: count was 5, is 6, files was bb, is dd\nRestore it" in str(caught.value)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_shown_and_not_repeated(command: Command):
    first = command("name=x", *FAST)
    before = contents(Path("outputs/x"))
    again = command("name=x", *FAST, "data.num_workers=1")
    assert again.code == 0
    assert "outputs/x is already finished; to train it again, type force=true" in again.out
    table = first.out[first.out.index("test ") : first.out.index("written to outputs/x")]
    assert table.strip() in again.out
    assert "epoch 1/1" not in again.out
    assert contents(Path("outputs/x")) == before


def test_another_config_with_the_same_name_changes_no_file(command: Command):
    assert command("name=x", *FAST).code == 0
    before = contents(Path("outputs/x"))
    outcome = command("name=x", *FAST, "seed=1", "optimizer=sgd")
    assert outcome.code == 1
    assert "outputs/x holds a finished run of another config:" in outcome.err
    assert "  seed: 0 in the run, 1 now" in outcome.err
    assert "  optimizer._target_: torch.optim.AdamW in the run, torch.optim.SGD now" in outcome.err
    assert contents(Path("outputs/x")) == before


def test_a_folder_with_other_files_is_refused(command: Command, tmp_path: Path):
    (tmp_path / "outputs/classify/resnet20/x").mkdir(parents=True)
    outcome = command("name=classify", *FAST, "model.weights=./none.pth")
    assert outcome.code == 1
    assert (
        "outputs/classify exists, but is not the folder of a run: type another name=" in outcome.err
    )
    assert (tmp_path / "outputs/classify/resnet20/x").is_dir()


def test_a_run_that_cannot_start_leaves_no_files(command: Command, tmp_path: Path):
    outcome = command("name=x", *FAST, "model.weights=./none.pth")
    assert "model.weights=./none.pth: there is no such file" in outcome.err
    assert not Path("outputs/x").exists()


def test_a_run_that_cannot_resume_is_recorded(command: Command, monkeypatch: pytest.MonkeyPatch):
    from tests.kill_callback import Killed

    words = (
        "name=x",
        *FAST,
        "callbacks.resume_checkpoint.every_n_steps=1",
        "+callbacks.kill._target_=tests.kill_callback.Kill",
    )
    monkeypatch.setenv("KILL", "step:2")
    with pytest.raises(Killed):
        command(*words)
    monkeypatch.delenv("KILL")
    state = load(Path("outputs/x/checkpoints/last.ckpt"))
    state["resume"]["processes"] = 2
    save(state, Path("outputs/x"), "checkpoints/last.ckpt")
    outcome = command(*words)
    assert (
        "outputs/x was started with 2 processes, but this command has 1: type trainer.devices=2"
        in outcome.err
    )
    assert Run(Path("outputs/x")).state == "failed"


def test_the_outputs_folder_may_be_a_link(command: Command, tmp_path: Path):
    (tmp_path / "big_disk").mkdir()
    (tmp_path / "outputs").symlink_to("big_disk")
    assert command("name=x", *FAST).code == 0
    result = Run(Path("outputs/x")).result
    assert result is not None
    assert result["checkpoint"] == "checkpoints/best.ckpt"


def test_force_starts_over_and_keeps_the_old_folder(command: Command):
    words = ("debug=fast", "trainer=cpu")  # TensorBoard too
    assert command("name=x", *words).code == 0
    before = {
        path.relative_to("outputs/x"): text for path, text in contents(Path("outputs/x")).items()
    }
    outcome = command("name=x", *words, "seed=1", "force=true")
    assert outcome.code == 0, outcome.err
    (kept,) = Path("outputs/replaced").iterdir()
    assert f"the previous run was moved to {kept}" in outcome.out
    assert {path.relative_to(kept): text for path, text in contents(kept).items()} == before
    assert Run(Path("outputs/x")).config["seed"] == 1
    assert Run(Path("outputs/x")).state == "finished"


def test_resume_uses_the_config_of_the_run(command: Command, tmp_path: Path):
    words = ("model=resnet20", "optimizer.lr=0.02", *FAST, "trainer.max_epochs=2")
    assert command(*words, "name=x", "+callbacks.kill._target_=tests.kill_callback.Kill").code == 0
    result = (tmp_path / "outputs/x/result.json").read_text()
    outcome = command("resume=outputs/x", "trust=[tests]")
    assert outcome.code == 0, outcome.err
    assert "outputs/x is already finished" in outcome.out
    assert (tmp_path / "outputs/x/result.json").read_text() == result
    assert "type run=outputs/x" in command("resume=outputs/x", "mode=evaluate", "trust=[tests]").err
    assert "not both" in command("resume=outputs/x", "run=outputs/x").err
    assert "there is no such folder" in command("resume=outputs/y").err
    assert (
        "to continue a sweep, repeat its command"
        in command("-m", "resume=outputs/x", "trust=[tests]", "seed=1,2").err
    )


def test_a_run_and_a_sweep_do_not_share_a_name(command: Command):
    assert command("name=x", *FAST).code == 0
    assert command("-m", "name=y", "seed=1,2", *FAST).code == 0
    before = contents(Path("outputs"))
    assert (
        "outputs/x is a single run, not a sweep: type another name="
        in command("-m", "name=x", "seed=1,2", *FAST).err
    )
    assert (
        "outputs/y is a sweep: type another name=, or -m to add to it"
        in command("name=y", *FAST).err
    )
    assert contents(Path("outputs")) == before


def test_a_changed_default_is_another_config(command: Command, tmp_path: Path):
    """A default of a user's config folder changes between two commands."""
    file = tmp_path / "my_conf" / "optimizer" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# Mine\n_target_: torch.optim.SGD\n_partial_: true\nlr: 0.01\n")
    words = ("--config-dir", "my_conf", "optimizer=mine", *FAST)
    assert command(*words, "name=x").code == 0
    file.write_text("# Mine\n_target_: torch.optim.SGD\n_partial_: true\nlr: 0.5\n")
    assert "  optimizer.lr: 0.01 in the run, 0.5 now" in command(*words, "name=x").err
    shown = command(
        "--config-dir", "my_conf", "run=outputs/x", "--cfg", "job", "--package", "optimizer"
    ).out
    assert "lr: 0.01" in shown  # run= means what it meant
    assert command("--config-dir", "my_conf", "resume=outputs/x").code == 0


def test_a_changed_dataset_is_refused(
    command: Command, make_folder: Callable[..., Path], monkeypatch
):
    from tests.kill_callback import Killed

    root = make_folder(count=12)
    words = (
        "data=folder",
        f"data.root={root}",
        "data.spec.image_size=[16,16]",
        *FAST,
        "trainer.max_epochs=2",
        "name=x",
        "+callbacks.kill._target_=tests.kill_callback.Kill",
    )
    monkeypatch.setenv("KILL", "epoch:2")
    with pytest.raises(Killed):
        command(*words)
    monkeypatch.delenv("KILL")
    image = root / "ash" / "003.png"
    content = image.read_bytes()
    image.write_bytes(content + b"more")
    outcome = command(*words)
    assert outcome.code == 1
    assert "the data has changed since outputs/x was started:\n" in outcome.err
    assert "files " in outcome.err
    image.write_bytes(content)
    moved = root.rename(root.with_name("elsewhere"))
    assert command(*words, f"data.root={moved}").code == 0  # a data set may move
    (moved / "ash" / "003.png").unlink()
    outcome = command(*words, f"data.root={moved}")
    assert outcome.code == 0
    assert (
        "have changed since (36 files before, 35 now): the result is that of the old files"
        in outcome.out
    )


def test_a_file_that_stopped_a_run_may_be_fixed(command: Command, make_folder: Callable[..., Path]):
    """The error says to fix or remove it; nothing was trained yet, so the same command starts again."""
    root = make_folder(count=12)
    bad = root / "ash" / "bad.png"
    bad.write_bytes(b"nothing")
    words = ("data=folder", f"data.root={root}", "data.spec.image_size=[16,16]", *FAST, "name=x")
    words = (
        *words,
        "trainer.limit_train_batches=1.0",
        "trainer.limit_val_batches=1.0",
        "trainer.limit_test_batches=1.0",
    )
    assert "1 image cannot be read" in command(*words).err
    bad.unlink()
    outcome = command(*words)
    assert outcome.code == 0, outcome.err
    data = Run(Path("outputs/x")).data
    assert data is not None
    assert sum(data[split]["count"] for split in ("train", "val", "test")) == 36


def test_a_finished_run_is_extended(command: Command):
    """To the weights of a run of that length, if the schedule does not depend on it."""
    words = (*FAST, "scheduler=constant", "trainer.limit_train_batches=4")
    assert command(*words, "name=x", "trainer.max_epochs=1").code == 0
    longer = (*words, "name=x", "trainer.max_epochs=3")
    assert "another config" in command(*longer).err
    outcome = command(*longer, "extend=true")
    assert outcome.code == 0, outcome.err
    assert "resuming     from step 4 (epoch 2" in outcome.out
    result = json.loads(Path("outputs/x/result.json").read_text())
    assert (result["epochs"], result["extended_from"]) == (3, [1])
    assert command(*words, "name=y", "trainer.max_epochs=3").code == 0
    for name in ("metrics.csv", "model.pth"):
        assert Path("outputs/x", name).read_bytes() == Path("outputs/y", name).read_bytes(), name
    assert "already finished" in command(*longer).out
    assert "extended_from" not in json.loads(Path("outputs/y/result.json").read_text())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["name=none"], "there is no run outputs/none to extend: type name= or resume="),
        (["name=x"], "extend=true trains a run longer: type trainer.max_epochs=<a number"),
        (["name=x", "trainer.max_epochs=0"], "trainer.max_epochs"),
        (["name=x", "trainer.max_epochs=5", "seed=7"], "outputs/x holds a finished run of another"),
    ],
)
def test_what_cannot_be_extended(command: Command, words: list[str], message: str):
    assert command(*FAST, "name=x").code == 0
    outcome = command(*FAST, *words, "extend=true")
    assert outcome.code != 0
    assert message in outcome.err
    assert Run(Path("outputs/x")).state == "finished"


def test_checkpoints_can_be_deleted_when_a_run_is_finished(command: Command):
    words = (*FAST, "name=x", "callbacks.resume_checkpoint.delete_when_finished=true")
    assert command(*words).code == 0
    run = Path("outputs/x")
    assert list((run / "checkpoints").iterdir()) == []
    assert json.loads((run / "result.json").read_text())["checkpoint"] is None
    assert "bit-exactly" in command("mode=evaluate", "run=outputs/x").out
    assert "already finished" in command(*words).out
    outcome = command(*words, "extend=true", "trainer.max_epochs=2")
    assert "has no checkpoint to extend it from: they were deleted" in outcome.err
