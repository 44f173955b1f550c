"""The same command gives bit-identical results, with any number of workers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import FAST, FAST_ANY_MODEL, Outcome

Command = Callable[..., Outcome]
TWO_EPOCHS = "trainer.max_epochs=2"


def test_the_same_command_twice_and_any_number_of_workers(
    command: Command, make_folder: Callable[..., Path]
):
    root = make_folder(classes=("ash", "beech", "cedar", "date"), count=20)
    data = (
        "data=folder",
        f"data.root={root}",
        "augment=imagenet",
        "data.spec.image_size=[32,32]",
        "model=squeezenet1_1",
    )
    for name, words in {"one": (), "two": (), "workers": ("data.num_workers=3",)}.items():
        outcome = command(*data, *FAST_ANY_MODEL, TWO_EPOCHS, f"name={name}", *words)
        assert outcome.code == 0, outcome.err
    for file in ("metrics.csv", "model.pth"):
        first = Path("outputs/one", file).read_bytes()
        assert Path("outputs/two", file).read_bytes() == first
        assert Path("outputs/workers", file).read_bytes() == first


def test_another_seed_gives_other_results(command: Command):
    for seed in (0, 1):
        assert command(*FAST, TWO_EPOCHS, f"name=s{seed}", f"seed={seed}").code == 0
    assert (
        Path("outputs/s0/metrics.csv").read_bytes() != Path("outputs/s1/metrics.csv").read_bytes()
    )


@pytest.mark.slow
def test_the_default_run_reaches_its_score(command: Command):
    """One epoch of the default is above the 0.67 of the nearest class mean."""
    assert command("name=short", "logger=none", "trainer.max_epochs=1").code == 0
    result = json.loads(Path("outputs/short/result.json").read_text())
    assert result["metrics"]["test/accuracy"] > 0.69
