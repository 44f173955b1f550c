"""``run=`` and ``resume=`` start from the config of a run."""

import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest

from tests.builders import FAST, Outcome
from vision_lab.cli.main import main
from vision_lab.config.overrides import CommandLine
from vision_lab.config.saved import SAVED_OPTION, add_saved_config
from vision_lab.core.errors import ConfigurationError
from vision_lab.run_folders.folder import Run

Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a run, trained once."""
    folder = tmp_path_factory.mktemp("saved")
    with chdir(folder):
        assert main(("name=x", "optimizer=sgd", "seed=7", *FAST)) == 0
    return folder


@pytest.fixture
def run(command: Command, trained: Path, tmp_path: Path) -> Run:
    """A copy of that run, in the working directory of ``command``."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return Run(Path("outputs/x"))


def composed(*words: str) -> tuple[list[str], object]:
    command, saved = add_saved_config(CommandLine.parse(words))
    return list(command.overrides), saved


def test_without_a_run_nothing_changes():
    command = CommandLine.parse(["model=resnet18"])
    assert add_saved_config(command)[0] is command


def test_groups_of_the_run_are_selected_unless_typed(run: Run):
    overrides, saved = composed("run=outputs/x", "optimizer=adam", "optimizer.lr=1")
    assert f"model={SAVED_OPTION}" in overrides
    assert f"optimizer={SAVED_OPTION}" not in overrides
    assert overrides[-2:] == ["optimizer=adam", "optimizer.lr=1"]
    assert saved.choices["optimizer"] == "sgd"
    assert list(saved.class_names) == run.spec["class_names"]


def test_plain_keys_of_the_run_are_kept_but_for_those_of_a_command(run: Run, command: Command):
    outcome = command("mode=evaluate", "run=outputs/x", "--cfg", "job")
    assert outcome.code == 0
    assert "\nseed: 7\n" in outcome.out
    assert outcome.out.startswith("name: null\n")
    assert "torch.optim.SGD" in outcome.out


def test_a_typed_group_replaces_the_whole_saved_one(run: Run, command: Command):
    out = command("run=outputs/x", "optimizer=adam", "--cfg", "job", "--package", "optimizer").out
    assert "torch.optim.Adam" in out
    assert "momentum" not in out


def test_resume_keeps_the_data_of_the_config(run: Run):
    _, saved = composed("resume=outputs/x")
    assert saved.class_names is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run=outputs/x", "resume=outputs/x"), "not both"),
        (("-m", "run=outputs/x,outputs/y"), "run= accepts a single run"),
        (("run=outputs/y",), "there is no such folder; outputs contains the runs x"),
        (("run=outputs",), "this folder contains several runs|type one of"),
        (
            ("run=outputs/x", "trust=abc"),
            r"trust=abc: type a list of packages, trust=\[my_package\]",
        ),
    ],
)
def test_runs_that_cannot_be_used(run: Run, words: tuple[str, ...], message: str):
    with pytest.raises(ConfigurationError, match=message):
        add_saved_config(CommandLine.parse(words))


def test_a_node_that_is_text_is_not_a_composed_config(run: Run):
    config = run.folder / "config.yaml"
    config.write_text(config.read_text().replace("\ntask:\n", "\ntask: x\nother:\n"))
    with pytest.raises(ConfigurationError, match=r"config\.yaml is not a composed config: task"):
        add_saved_config(CommandLine.parse(["run=outputs/x"]))
