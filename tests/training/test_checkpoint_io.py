"""Checkpoint files: atomic, safe to load, and the newest intact one."""

import os
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from tests.builders import FAST, Outcome
from tests.kill_callback import Killed
from vision_lab.run_folders.folder import Run
from vision_lab.training import checkpoint_io
from vision_lab.training.checkpoint_io import (
    AtomicCheckpointIO,
    copy_state,
    corruption,
    latest_checkpoint,
    load,
    save,
)

Command = Callable[..., Outcome]
CONTENT = {"weights": torch.arange(1000.0), "step": 3}


class Malicious:
    def __reduce__(self):
        return os.system, ("touch stolen",)


@pytest.fixture(params=[True, False], ids=["background", "immediately"])
def files(request: pytest.FixtureRequest) -> AtomicCheckpointIO:
    return AtomicCheckpointIO(background=request.param)


def save_now(files: AtomicCheckpointIO, state: dict[str, Any], path: Path) -> None:
    files.save_checkpoint(state, path)
    files.teardown()


def test_writing_last_renames_the_earlier_one_to_previous(
    files: AtomicCheckpointIO, tmp_path: Path
):
    for step in (1, 2, 3):
        files.save_checkpoint({"step": step}, tmp_path / "last.ckpt")
        files.save_checkpoint({"step": step}, tmp_path / "best.ckpt")
    files.teardown()
    found = {path.name: load(path)["step"] for path in tmp_path.iterdir()}
    assert found == {"last.ckpt": 3, "previous.ckpt": 2, "best.ckpt": 3}


def test_a_full_disk_keeps_existing_files(
    files: AtomicCheckpointIO, tmp_path: Path, small_files: None
):
    files.save_checkpoint(CONTENT, tmp_path / "last.ckpt")
    files.teardown()
    before = (tmp_path / "last.ckpt").read_bytes()
    with pytest.raises(OSError, match="File too large"):
        save_now(files, {"weights": torch.arange(10_000.0)}, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_a_checkpoint_contains_the_state_at_which_it_was_saved(
    files: AtomicCheckpointIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Training changes tensors and lists in place, while the file is still being written."""
    may_write = Event()

    def wait(*arguments: Any, **settings: Any) -> None:
        may_write.wait()
        save(*arguments, **settings)

    monkeypatch.setattr(checkpoint_io, "save", wait)
    state = {"weights": torch.ones(3), "losses": [1.0], "epochs": OrderedDict(a=(torch.ones(1),))}
    if not files.background:
        may_write.set()
    files.save_checkpoint(state, tmp_path / "last.ckpt")
    state["weights"].zero_()
    state["losses"].append(2.0)
    state["epochs"]["a"][0].zero_()
    may_write.set()
    found = files.load_checkpoint(tmp_path / "last.ckpt")
    assert torch.equal(found["weights"], torch.ones(3))
    assert found["losses"] == [1.0]
    assert found["epochs"]["a"][0] == 1


def test_tied_weights_are_written_once():
    weights = torch.arange(6.0).view(2, 3)
    copied = copy_state({"a": weights.detach(), "b": weights.detach(), "c": weights.T})
    assert copied["a"].data_ptr() == copied["b"].data_ptr()
    assert copied["a"].data_ptr() != weights.data_ptr()
    assert torch.equal(copied["c"], weights.T)


def test_an_error_of_the_background_is_raised_by_the_next_checkpoint(
    tmp_path: Path, small_files: None
):
    files = AtomicCheckpointIO()
    files.save_checkpoint({"weights": torch.arange(10_000.0)}, tmp_path / "last.ckpt")
    with pytest.raises(OSError, match="File too large"):
        files.save_checkpoint(CONTENT, tmp_path / "best.ckpt")
    assert list(tmp_path.iterdir()) == []
    files.save_checkpoint(CONTENT, tmp_path / "best.ckpt")
    files.teardown()
    assert load(tmp_path / "best.ckpt")["step"] == 3


def test_corruption_is_detected(tmp_path: Path):
    path = tmp_path / "a.ckpt"
    save(CONTENT, tmp_path, "a.ckpt")
    assert corruption(path) is None
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert str(corruption(path)).startswith("it is truncated or corrupt: ")
    place = whole.index(torch.arange(1000.0).numpy().tobytes()[:400]) + 200
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert "the checksum of archive/data/0 in it is wrong" in str(corruption(path))
    path.write_bytes(b"")
    assert str(corruption(path)).startswith("it is truncated or corrupt: ")
    torch.save({"weights": Malicious()}, path)
    assert (
        corruption(path)
        == "it contains objects other than tensors and plain values, which could run code"
    )
    path.write_bytes(pickle.dumps(Malicious()))
    assert corruption(path) is not None
    assert not Path("stolen").exists()


def test_the_newest_checkpoint_is_found(tmp_path: Path):
    reported: list[tuple[str, str]] = []
    assert latest_checkpoint(tmp_path, lambda *damage: reported.append(damage)) is None
    last, previous = (tmp_path / "checkpoints" / name for name in ("last.ckpt", "previous.ckpt"))
    save(CONTENT, tmp_path, "checkpoints/previous.ckpt")
    assert latest_checkpoint(tmp_path, lambda *damage: reported.append(damage)) == previous
    save(CONTENT, tmp_path, "checkpoints/last.ckpt")
    assert latest_checkpoint(tmp_path, lambda *damage: reported.append(damage)) == last
    assert reported == []
    last.write_bytes(b"torn")
    assert latest_checkpoint(tmp_path, lambda *damage: reported.append(damage)) == previous
    assert reported == [
        ("checkpoints/last.ckpt", "it is truncated or corrupt: File is not a zip file")
    ]
    previous.write_bytes(b"torn")
    assert latest_checkpoint(tmp_path, lambda *damage: reported.append(damage)) is None


def test_the_previous_checkpoint_survives_a_full_disk(
    files: AtomicCheckpointIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for step in (1, 2):
        files.save_checkpoint({"step": step}, tmp_path / "last.ckpt")
    files.teardown()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_now(files, {"step": 3}, tmp_path / "last.ckpt")
    assert {path.name: load(path)["step"] for path in tmp_path.iterdir()} == {
        "last.ckpt": 2,
        "previous.ckpt": 1,
    }


WORDS = (
    *(*FAST, "trainer.max_epochs=3", "callbacks.resume_checkpoint.every_n_steps=1"),
    "+callbacks.kill._target_=tests.kill_callback.Kill",
    "seed=2",
)


@pytest.mark.parametrize(
    "how",
    ["torn", *(pytest.param(how, marks=pytest.mark.slow) for how in ("pickle", "missing", "both"))],
)
def test_a_corrupt_last_checkpoint_falls_back_to_the_previous(
    command: Command, monkeypatch: pytest.MonkeyPatch, how: str, tmp_path: Path
):
    assert command(*WORDS, "name=alone").code == 0
    monkeypatch.setenv("KILL", "step:8")
    with pytest.raises(Killed):
        command(*WORDS, "name=x")
    monkeypatch.delenv("KILL")
    last = Path("outputs/x/checkpoints/last.ckpt")
    content = last.read_bytes()
    if how in ("torn", "both"):
        last.write_bytes(content[: len(content) // 2])
    elif how == "pickle":
        torch.save({"state_dict": Malicious()}, last)
    else:
        last.unlink()
    if how == "both":
        shutil.copy(last, last.with_name("previous.ckpt"))
    outcome = command(*WORDS, "name=x")
    assert outcome.code == 0, outcome.err
    assert ("warning: " in outcome.out) == (how != "missing")
    assert ("cannot be used" in outcome.out) == (how != "missing")
    damaged = {path.name for path in Path("outputs/x/checkpoints").glob("*.corrupt")}
    expected = {"missing": set(), "both": {"last.corrupt", "previous.corrupt"}}
    assert damaged == expected.get(how, {"last.corrupt"})
    steps = {"torn": 6, "pickle": 6, "missing": 6}
    if how in steps:
        assert f"resuming     from step {steps[how]}" in outcome.out
    assert not (tmp_path / "stolen").exists()
    assert Run(Path("outputs/x")).state == "finished"
    for file in ("metrics.csv", "model.pth"):
        assert Path("outputs/x", file).read_bytes() == Path("outputs/alone", file).read_bytes()


def test_a_best_checkpoint_of_another_network_is_named(
    command: Command, monkeypatch: pytest.MonkeyPatch
):
    words = (*WORDS, "trainer.max_epochs=1", "name=x")
    monkeypatch.setenv("KILL", "test:1")
    with pytest.raises(Killed):
        command(*words)
    monkeypatch.delenv("KILL")
    best = Path("outputs/x/checkpoints/best.ckpt")
    checkpoint = torch.load(best, weights_only=True)
    name = next(iter(checkpoint["state_dict"]))
    other = {**checkpoint, "state_dict": {**checkpoint["state_dict"], name: torch.zeros(3)}}
    del checkpoint["state_dict"]
    reasons = {
        "it contains a dict without weights": checkpoint,
        f"it is from another network: {name} do not match": other,
    }
    for reason, content in reasons.items():
        torch.save(content, best)
        outcome = command(*words)
        assert outcome.code == 1
        assert f"best.ckpt cannot be used ({reason}): type force=true" in outcome.err
        assert "Traceback" not in outcome.err


def test_a_state_that_lightning_cannot_restore_is_named(
    command: Command, monkeypatch: pytest.MonkeyPatch
):
    """A version that is not text, and an invalid state of loops."""
    monkeypatch.setenv("KILL", "step:5")
    with pytest.raises(Killed):
        command(*WORDS, "name=x")
    monkeypatch.delenv("KILL")
    last = Path("outputs/x/checkpoints/last.ckpt")
    checkpoint = torch.load(last, weights_only=True)
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.automatic_optimization.optim_progress"]
    progress["optimizer"]["zero_grad"] = "no progress"
    torch.save(checkpoint, last)
    outcome = command(*WORDS, "name=x")
    assert outcome.code == 1
    assert "last.ckpt cannot be restored (" in outcome.err
    assert "Traceback" not in outcome.err
    checkpoint["pytorch-lightning_version"] = torch.zeros(1).expand(10**9)
    torch.save(checkpoint, last)
    outcome = command(*WORDS, "name=x")
    assert outcome.code == 0
    assert "it is not a training state: pytorch-lightning_version has another type" in outcome.out


def test_a_full_disk_while_training(command: Command, monkeypatch: pytest.MonkeyPatch):
    """The disk is full after the first checkpoint; then there is space again."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert command(*WORDS, "name=alone").code == 0
    monkeypatch.setenv("KILL", "step:5")
    with pytest.raises(Killed):
        command(*WORDS, "name=x")
    monkeypatch.delenv("KILL")
    good = {path: path.read_bytes() for path in Path("outputs/x/checkpoints").iterdir()}
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        outcome = command(*WORDS, "name=x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert outcome.code == 1
    assert (
        "outputs/x cannot be written: File too large. The files already written are intact. Free some space"
        in outcome.err
    )
    assert "Traceback" not in outcome.err
    assert {path: path.read_bytes() for path in Path("outputs/x/checkpoints").iterdir()} == good
    assert Run(Path("outputs/x")).state == "failed"
    assert command(*WORDS, "name=x").code == 0
    for file in ("metrics.csv", "model.pth"):
        assert Path("outputs/x", file).read_bytes() == Path("outputs/alone", file).read_bytes()
