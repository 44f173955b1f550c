"""Checkpoint files: atomic, safe to load, and the newest intact one."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.builders import FAST, Outcome
from tests.kill_callback import Killed
from vision_lab.run_folders.folder import Run
from vision_lab.training.checkpoint_io import (
    AtomicCheckpointIO,
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


def test_writing_last_renames_the_earlier_one_to_previous(tmp_path: Path):
    files = AtomicCheckpointIO()
    for step in (1, 2, 3):
        files.save_checkpoint({"step": step}, tmp_path / "last.ckpt")
        files.save_checkpoint({"step": step}, tmp_path / "best.ckpt")
    found = {path.name: load(path)["step"] for path in tmp_path.iterdir()}
    assert found == {"last.ckpt": 3, "previous.ckpt": 2, "best.ckpt": 3}


def test_a_full_disk_keeps_existing_files(tmp_path: Path, small_files: None):
    files = AtomicCheckpointIO()
    files.save_checkpoint(CONTENT, tmp_path / "last.ckpt")
    before = (tmp_path / "last.ckpt").read_bytes()
    with pytest.raises(OSError, match="File too large"):
        files.save_checkpoint({"weights": torch.arange(10_000.0)}, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert (tmp_path / "last.ckpt").read_bytes() == before


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = AtomicCheckpointIO()
    for step in (1, 2):
        files.save_checkpoint({"step": step}, tmp_path / "last.ckpt")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.save_checkpoint({"step": 3}, tmp_path / "last.ckpt")
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
