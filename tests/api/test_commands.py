"""Commands from Python: configs, errors, interruption, threads, and no state left behind."""

import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import vision_lab
from tests.builders import FAST
from vision_lab.api import commands
from vision_lab.core.errors import ConfigurationError
from vision_lab.run_folders.folder import Run

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def test_a_config_is_composed_as_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    config = vision_lab.compose("model=resnet18", "optimizer.lr=0.5")
    assert config["model"]["network"]["_target_"] == "torchvision.models.resnet18"
    assert config["optimizer"]["lr"] == 0.5
    assert config.overrides == ("model=resnet18", "optimizer.lr=0.5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["modl=resnet18"], "modl: there is no such key or group. Did you mean model"),
        (["model=resnet19"], "model=resnet19: there is no such model. Did you mean"),
        (["-m", "seed=1,2"], "flags and sweeps are for the command line"),
        (["run=absent"], "run=absent: there is no such folder"),
    ],
)
def test_wrong_words_raise_what_the_command_line_prints(words: list[str], message: str):
    with pytest.raises(ConfigurationError) as caught:
        vision_lab.compose(*words)
    assert message in str(caught.value)


def test_invalid_values_leave_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"optimizer\.lr=-1: type a number of 0 or more"):
        vision_lab.train(*FAST, "name=x", "optimizer.lr=-1")
    assert not Path("outputs/x").exists()
    with pytest.raises(ConfigurationError, match="several devices need a process each"):
        vision_lab.train(*FAST, "name=x", "trainer.devices=2")


def state() -> dict[str, Any]:
    return {
        "argv": list(sys.argv),
        "path": list(sys.path),
        "environment": dict(os.environ),
        "signals": [signal.getsignal(number) for number in SIGNALS],
        "hydra": (HydraConfig.instance().cfg, GlobalHydra.instance().hydra),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warnings": list(warnings.filters),
        "random": (random.getstate(), torch.get_rng_state().tolist()),
        "numpy": np.random.get_state()[1].tolist(),
    }


def test_no_state_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    before = state()
    run = vision_lab.train(*FAST, "name=x")
    run.predict(np.zeros((28, 28), dtype=np.uint8))
    run.evaluate("val")
    with pytest.raises(ConfigurationError):
        vision_lab.train(*FAST, "name=x", "seed=3")
    assert state() == before


class InterruptAtStep(pl.Callback):
    """Sends SIGINT after a step, as the stop button of a notebook does."""

    def on_train_batch_end(self, trainer, *_: Any) -> None:
        if trainer.global_step == 2 and not os.environ.get("RESUMED"):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_training_resumes_bit_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    word = "+callbacks.stop._target_=tests.api.test_commands.InterruptAtStep"
    with pytest.raises(KeyboardInterrupt, match="to resume outputs/x, repeat the call"):
        vision_lab.train(*FAST, "name=x", word)
    assert Run(Path("outputs/x")).state == "failed"
    monkeypatch.setenv("RESUMED", "1")
    resumed = vision_lab.train(*FAST, "name=x", word)
    whole = vision_lab.train(*FAST, "name=y", word)
    assert resumed.metrics == whole.metrics
    weights = [torch.load(run.folder / "model.pth", weights_only=True) for run in (resumed, whole)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])


def test_a_second_run_in_a_thread_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    started, go_on = threading.Event(), threading.Event()
    errors: list[str] = []

    def wait(*_: Any) -> Callable[..., None]:
        def mode(*_: Any) -> None:
            started.set()
            assert go_on.wait(20)

        return mode

    monkeypatch.setattr("vision_lab.api.commands.build_mode", wait)
    thread = threading.Thread(target=commands.run, args=([*FAST, "name=x"],))
    thread.start()
    assert started.wait(20)
    try:
        commands.run([*FAST, "name=y"])
    except ConfigurationError as error:
        errors.append(str(error))
    go_on.set()
    thread.join()
    assert errors
    assert errors[0].startswith("another run is active in this process")
    assert not Path("outputs/y").exists()
