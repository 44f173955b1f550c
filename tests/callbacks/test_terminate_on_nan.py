"""A loss that is not finite ends the run, before such weights are saved."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import torch

from tests.builders import FAST, Outcome
from vision_lab.run_folders.folder import Run
from vision_lab.training.checkpoint_io import load

Command = Callable[..., Outcome]
WORDS = (*FAST, "trainer.max_epochs=3", "callbacks.resume_checkpoint.every_n_steps=1")


@pytest.fixture
def broken(tmp_path: Path) -> None:
    """A task whose loss or weights become NaN at the fifth step."""
    (tmp_path / "broken_loss.py").write_text(
        dedent("""\
            import torch
            from vision_lab.tasks.classification import ClassificationTask

            class Loss(ClassificationTask):
                def losses(self, outputs, batch):
                    losses = super().losses(outputs, batch)
                    wrong = self.training and self.trainer.global_step == 4
                    return {**losses, "loss": losses["loss"] * (float("nan") if wrong else 1)}

            class Weights(ClassificationTask):
                def lr_scheduler_step(self, scheduler, metric):  # right after the step of the optimizer
                    super().lr_scheduler_step(scheduler, metric)
                    if self.trainer.global_step == 5:
                        with torch.no_grad():
                            next(self.network.parameters()).fill_(float("inf"))
            """)
    )


def test_a_loss_that_is_nan_ends_the_run(
    command: Command, broken: None, make_folder: Callable[..., Path]
):
    root = make_folder(count=30)
    data = ("data=folder", f"data.root={root}", "data.spec.image_size=[32,32]")
    outcome = command(*WORDS, *data, "task._target_=broken_loss.Loss", "name=x")
    assert outcome.code == 1
    lines = outcome.err.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("error: "))
    assert lines[start] == "error: at step 5 the loss is not finite: loss nan"
    samples = lines[start + 1].removeprefix("Samples of the batch: ").split(", ")
    assert len(samples) == 8
    assert [Path(line.strip()).is_file() for line in lines[start + 2 : start + 10]] == [True] * 8
    assert lines[start + 10].endswith("checkpoints/last.ckpt of step 4.")
    assert (
        "use another name= with a smaller learning rate, or with gradient_clip_val=1"
        in lines[start + 11]
    )
    assert Run(Path("outputs/x")).error == "at step 5 the loss is not finite: loss nan"
    state = load(Path("outputs/x/checkpoints/last.ckpt"))
    assert state["global_step"] == 4
    assert all(bool(value.isfinite().all()) for value in state["state_dict"].values())
    again = command(*WORDS, *data, "task._target_=broken_loss.Loss", "name=x")
    assert "resuming     from step 4" in again.out
    assert f"Samples of the batch: {', '.join(samples)}" in again.err


def test_steps_that_are_not_logged_are_checked_for_nan(command: Command, broken: None):
    outcome = command(
        *WORDS, "task._target_=broken_loss.Loss", "name=x", "trainer.log_every_n_steps=0"
    )
    assert "at step 5 the loss is not finite: loss nan" in outcome.err


def test_weights_with_nan_are_not_saved(command: Command, broken: None):
    outcome = command(*WORDS, "task._target_=broken_loss.Weights", "name=x")
    assert outcome.code == 1
    assert "after step 5 the weights are not finite: network.conv1.weight" in outcome.err
    state = load(Path("outputs/x/checkpoints/last.ckpt"))
    assert state["global_step"] == 4
    assert torch.isfinite(state["state_dict"]["network.conv1.weight"]).all()
