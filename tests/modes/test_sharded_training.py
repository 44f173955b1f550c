"""``trainer=fsdp`` with two CPU processes: numbers of one process, exact resume, refusals."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.builders import Outcome
from tests.processes import fork_command

Command = Callable[..., Outcome]

KILL = {"KILL": "step:20", "DEATH": "SIGKILL", "RUN": "1"}
"""Ends rank 0 by SIGKILL in its second epoch."""


@pytest.mark.slow
def test_a_sharded_network_is_trained_as_a_whole_one(
    tmp_path: Path, make_folder: Callable[..., Path]
):
    """As by one process with twice the batch; bit-exactly the same after a kill."""
    root = make_folder(classes=("ash", "beech", "cedar"), count=17)
    words = (
        "data=folder",
        f"data.root={root}",
        "data.spec.image_size=[16,16]",
        "model=squeezenet1_1",
        "+model.network.dropout=0.0",
        "trainer.max_epochs=2",
        "logger=none",
        "callbacks.progress_bar=null",
        "+callbacks.kill._target_=tests.kill_callback.Kill",
    )
    sharded = ("trainer=fsdp_cpu", "trainer.strategy.unit_size=10000", "data.batch_size=2")
    for name, extra, variables in (
        ("one", ("trainer=cpu", "data.batch_size=4"), {}),
        ("two", sharded, {}),
        ("killed", sharded, KILL),
        ("killed", sharded, {}),
    ):
        done = fork_command(tmp_path, *words, *extra, f"name={name}", **variables)
        assert (done.returncode == 0) == (not variables), done.stderr
    assert "resuming     from step" in done.stdout
    folder = tmp_path / "outputs"
    tables = []
    for name in ("one", "two"):
        with (folder / name / "metrics.csv").open() as file:
            tables.append(list(csv.DictReader(file)))
    assert len(tables[0]) == len(tables[1]) == 2
    for one, two in zip(*tables, strict=True):
        for metric in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
            assert float(one[metric]) == pytest.approx(float(two[metric]), rel=1e-3), metric
    networks = [(folder / name / "model.pth").read_bytes() for name in ("two", "killed")]
    assert networks[0] == networks[1]
    last = torch.load(folder / "two/checkpoints/last.ckpt", weights_only=True)
    alone = torch.load(folder / "one/checkpoints/last.ckpt", weights_only=True)
    for key in ("state_dict", "optimizer_states"):
        assert shapes(last[key]) == shapes(alone[key])


def shapes(state: object) -> object:
    """Replace each tensor of a state by its shape."""
    if isinstance(state, torch.Tensor):
        return tuple(state.shape)
    if isinstance(state, dict):
        return {key: shapes(value) for key, value in state.items() if key != "param_groups"}
    return [shapes(value) for value in state] if isinstance(state, list) else None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("task=generate",), "divides a single network between the processes, but this task has"),
        (("callbacks=ema",), "callbacks that average weights require whole networks"),
    ],
)
def test_what_cannot_be_sharded_is_refused(command: Command, words: tuple[str, ...], message: str):
    outcome = command(*words, "debug=fast", "trainer=fsdp_cpu", "name=x")
    assert outcome.code == 1
    assert message in outcome.err
    assert "Traceback" not in outcome.err
