"""Ctrl-C and SIGTERM: the step is finished, a checkpoint saved, and a message says how to resume."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.processes import ForkedCommand
from vision_lab.core import signals
from vision_lab.core.signals import Interrupted
from vision_lab.run_folders.folder import Run
from vision_lab.training.checkpoint_io import load

WORDS = (
    "trainer=cpu",
    "logger=none",
    "callbacks.image_logger=null",
    "data.batch_size=16",
    "data.num_workers=1",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=150",
    "trainer.limit_val_batches=2",
    "seed=4",
    "trainer.limit_test_batches=2",
)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_a_checkpoint_and_says_how_to_resume(tmp_path: Path, number: signal.Signals):
    name = [] if number == signal.SIGTERM else ["name=x"]
    process = ForkedCommand(tmp_path, *WORDS, *name)
    folder = None
    while folder is None and process.poll() is None:
        folder = next(
            (f.parent for f in tmp_path.rglob("status.json") if '"running"' in f.read_text()), None
        )
        time.sleep(0.1)
    assert folder is not None, process.communicate()
    time.sleep(1.5)
    os.killpg(process.pid, number)  # as a terminal does: its workers get it too
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.endswith("interrupted\n")
    assert "Traceback" not in err
    run = Run(folder)
    assert (run.state, run.error) == ("failed", "interrupted")
    state = load(folder / "checkpoints" / "last.ckpt")
    epoch, batches = state["resume"]["position"]
    assert 0 < epoch * 150 + batches == state["global_step"] < 300
    again = "repeat the command, or type python -m vision_lab resume=outputs/x"
    alone = f"type python -m vision_lab resume={folder.relative_to(tmp_path)}"
    assert f"to resume, {again if name else alone}" in " ".join(out.split())


def test_a_signal_ends_the_command_at_once_or_after_the_step():
    before = signal.getsignal(signal.SIGINT)
    with signals.signals_as_interrupt():
        with pytest.raises(Interrupted, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        signals.defer_signals(True)
    with signals.signals_as_interrupt():
        signals.defer_signals(True)
        assert not signals.signal_pending()
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.signal_pending()
        with pytest.raises(Interrupted):  # a second one does not wait
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
