"""Searches and grids on the command line: files, kills, several processes, errors in words."""

import builtins
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import metadata

from tests.builders import FAST, FAST_ANY_MODEL, Outcome
from tests.processes import ForkedCommand, fork_command
from vision_lab.run_folders.folder import Run

Command = Callable[..., Outcome]

SPACE = ("optimizer.lr=tag(log,interval(1e-4,1))", "model.network.depth=8,14")
SEARCH = ("-m", "search=tpe", *SPACE, *FAST_ANY_MODEL)
SMALL = ("trainer.max_epochs=2", "data.batch_size=8", "name=x")


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "search.json").read_text())
    return found


def test_files_of_a_search(command: Command):
    outcome = command(*SEARCH, *SMALL, "search.trials=3")
    assert outcome.code == 0, outcome.err
    folder = Path("outputs/x")
    found = read(folder)
    assert found["metrics"] == {"val/accuracy": "max"}
    names = ["trial-000", "trial-001", "trial-002"]
    assert [trial["trial"] for trial in found["trials"]] == names
    assert [path.name for path in sorted(folder.glob("trial-*"))] == names
    for trial in found["trials"]:
        run = Run(folder / trial["trial"])
        assert run.result is not None
        assert trial["values"] == run.result["monitored"]
        typed = yaml.safe_load((run.folder / "overrides.yaml").read_text())["overrides"]
        for key, value in trial["params"].items():
            assert f"{key}={value}" in typed
    assert {path.name for path in (folder / "images").iterdir()} == {"history.png", "parallel.png"}
    best = max(found["trials"], key=lambda trial: trial["values"]["val/accuracy"])
    assert found["best"] == [best["trial"]]
    assert found["command"] in outcome.out.replace("\n", "")
    assert f"optimizer.lr={best['params']['optimizer.lr']}" in found["command"]
    assert "seed=1,2,3 name=x-best" in found["command"]
    assert "search." not in found["command"]
    assert outcome.out.count("written to outputs/x/trial-") == 3

    repeated = command(*SEARCH, *SMALL, "search.trials=3")
    assert repeated.code == 0
    assert "written to" not in repeated.out
    assert read(folder) == found

    evaluated = command("mode=evaluate", "run=outputs/x/trial-001")
    assert evaluated.code == 0, evaluated.err
    assert "bit-exactly the result reported after training" in evaluated.out


@pytest.mark.slow
def test_unpromising_trials_end_early(command: Command):
    """Trials with a learning rate of almost 0, which are not trained again."""
    words = (*SEARCH, *SMALL, "search.trials=10", "trainer.max_epochs=3")
    outcome = command(*words, "optimizer.lr=1e-3,1e-9")
    assert outcome.code == 0, outcome.err
    trials = read(Path("outputs/x"))["trials"]
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial["epochs"] < 3
        run = Run(Path("outputs/x") / trial["trial"])
        assert run.state == "pruned"
        assert run.status["epochs"] == trial["epochs"]
        assert (run.folder / "metrics.csv").is_file()
        assert run.result is None
    assert command(*words, "optimizer.lr=1e-3,1e-9").code == 0
    assert read(Path("outputs/x"))["trials"] == trials


@pytest.mark.slow
def test_a_pareto_front(command: Command):
    words = ("search.metric=[val/accuracy,parameters]", "search.mode=[max,min]")
    outcome = command(*SEARCH, *SMALL, *words, "search.trials=3")
    assert outcome.code == 0, outcome.err
    found = read(Path("outputs/x"))
    values = [tuple(trial["values"].values()) for trial in found["trials"]]
    front = []
    for trial, (accuracy, parameters) in zip(found["trials"], values, strict=True):
        if not any(
            a >= accuracy and p <= parameters and (a, p) != (accuracy, parameters)
            for a, p in values
        ):
            front.append(trial["trial"])
    assert sorted(found["best"]) == front


KILL = "+callbacks.kill._target_=tests.kill_callback.Kill"


@pytest.mark.slow
def test_a_killed_search_has_the_same_trials(tmp_path: Path):
    """Killed within a trial, before its test, and between two trials."""
    words = (*SEARCH, "trainer.max_epochs=3", "search.trials=8", KILL)
    whole = fork_command(tmp_path, *words, "name=whole")
    assert whole.returncode == 0, whole.stderr
    for place, run in (("step:5", "1"), ("epoch:1", "2"), ("test:1", "3"), ("validation:1", "2")):
        killed = fork_command(tmp_path, *words, "name=x", KILL=place, RUN=run, DEATH="SIGKILL")
        assert killed.returncode == -9, (place, killed.stderr)
    done = fork_command(tmp_path, *words, "name=x")
    assert done.returncode == 0, done.stderr
    outputs = tmp_path / "outputs"
    for found in (read(outputs / "whole"), read(outputs / "x")):
        found.pop("command")
    assert read(outputs / "x")["trials"] == read(outputs / "whole")["trials"]
    for trial in read(outputs / "whole")["trials"]:
        one, two = (outputs / name / trial["trial"] for name in ("whole", "x"))
        assert (one / "metrics.csv").read_bytes() == (two / "metrics.csv").read_bytes()


@pytest.mark.slow
def test_tensorboard_shows_the_values_of_trials(command: Command):
    assert command(*SEARCH, *SMALL, "search.trials=1", "logger=tensorboard").code == 0
    (params,) = (trial["params"] for trial in read(Path("outputs/x"))["trials"])
    shown: dict[str, Any] = {}
    for file in Path("outputs/x/trial-000").glob("hparams/events.*"):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.tag == metadata.SESSION_START_INFO_TAG:
                    content = value.metadata.plugin_data.content
                    found = metadata.parse_session_start_info_plugin_data(content).hparams
                    shown |= {k: v.string_value or v.number_value for k, v in found.items()}
    assert shown["optimizer.lr"] == pytest.approx(params["optimizer.lr"])
    assert shown["model.network.depth"] == int(params["model.network.depth"])


@pytest.mark.slow
def test_two_processes_divide_the_trials(tmp_path: Path):
    done = fork_command(tmp_path, *SEARCH, *SMALL, "search.trials=5", "search.workers=2")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "x"
    assert [trial["state"] for trial in read(folder)["trials"]] == ["finished"] * 5
    logs = [(folder / f"worker-{number}.log").read_text() for number in (0, 1)]
    counts = [log.count("written to") for log in logs]
    assert sum(counts) == 5
    assert min(counts) >= 1
    assert done.stdout.count("  finished  ") == 5


@pytest.mark.slow
def test_the_same_command_in_two_terminals(tmp_path: Path):
    words = (*SEARCH, *SMALL, "search.trials=4")
    both = [ForkedCommand(tmp_path, *words) for _ in range(2)]
    outputs = [command.communicate(timeout=120)[0] for command in both]
    assert [command.returncode for command in both] == [0, 0] or 1 in [c.returncode for c in both]
    assert sum(output.count("written to outputs/x/trial-") for output in outputs) == 4
    assert fork_command(tmp_path, *words).returncode == 0


GRID = ("-m", "model=resnet20,inception_v3,squeezenet1_1", "name=x", *FAST_ANY_MODEL)
"""inception_v3 fails, since it does not support small images."""


@pytest.mark.slow
def test_a_grid_repeats_failures_only_if_asked(command: Command):
    for words, trained, failures in ((), 2, 1), ((), 0, 0), (("search.retry=1",), 0, 1):
        outcome = command(*GRID, *words)
        assert outcome.code == 1
        assert outcome.out.count("written to") == trained
        assert outcome.err.count("error: data.spec.image_size") == failures
        assert "inception_v3 failed: data.spec.image_size" in outcome.out.replace("\n", "")
    assert "model-inception_v3 has failed" in command(*GRID).out


@pytest.mark.slow
def test_a_grid_in_two_processes(tmp_path: Path):
    done = fork_command(tmp_path, *GRID, "search.workers=2")
    assert done.returncode == 1
    assert done.stdout.count("written to") == 2
    states = {path.parent.name: Run(path.parent).state for path in tmp_path.rglob("status.json")}
    assert states == {
        "model-resnet20": "finished",
        "model-inception_v3": "failed",
        "model-squeezenet1_1": "finished",
    }


def test_several_runs_are_evaluated(command: Command):
    assert command("-m", "seed=1,2", "name=x", *FAST).code == 0
    outcome = command("-m", "mode=evaluate", "run=outputs/x/seed-1,outputs/x/seed-2")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("bit-exactly the result reported after training") == 2
    missing = command("-m", "mode=evaluate", "run=outputs/x/seed-1,outputs/x/seed-3")
    assert missing.code == 2
    assert "run=outputs/x/seed-3: there is no such folder" in missing.err


def test_runs_keep_their_folder_when_more_is_varied(command: Command):
    assert command("-m", "seed=1", "name=x", *FAST).code == 0
    (before,) = Path("outputs/x").glob("[!.]*/")
    outcome = command("-m", "seed=1,2", "name=x", *FAST)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("written to") == 1
    assert {path.name for path in Path("outputs/x").glob("[!.]*/")} == {before.name, "seed-2"}


def test_results_are_ordered_with_the_metric_of_the_checkpoint(command: Command):
    outcome = command("-m", "seed=1,2", "name=x", *FAST)
    table = [line for line in outcome.out.splitlines() if "│ finished │" in line]
    scores = [float(line.split("│")[3]) for line in table]
    assert scores == sorted(scores, reverse=True)
    assert "val/accuracy" in outcome.out
    assert "seconds" in outcome.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("optimizer.lr=interval(0.1,1)",),
            "optimizer.lr=interval(0.1,1): an interval is for a search: type search=tpe, or values",
        ),
        (("search=tpe",), "a search varies at least one option: type optimizer.lr="),
        (
            ("search=tpe", *SPACE, "search.pruner=half"),
            "search.pruner=half: type median, hyperband or none",
        ),
        (("search=tpe", *SPACE, "search.trials=0"), "search.trials=0: type a whole number of 1 or"),
        (
            ("search=tpe", *SPACE, "search.metric=[val/f1,seconds]"),
            "search.mode=['max']: type max or min for each of val/f1, seconds, such as",
        ),
        (
            ("search=grid", *SPACE),
            "search=grid tries all values, but optimizer.lr=tag(log,interval(1e-4,1)) is an interval",
        ),
        (
            ("search=tpe", *SPACE, "search.sampler._target_=optuna.samplers.None"),
            "search.sampler._target_=optuna.samplers.None cannot be found",
        ),
        (
            ("search=tpe", *SPACE, "search.sampler._target_=torch.nn.Linear"),
            "search.sampler._target_=torch.nn.Linear: type a sampler of Optuna, such as",
        ),
        (("seeds=none",), "seeds=none: type a whole number of 1 or more"),
        (("seeds=0",), "seeds=0: type a whole number of 1 or more"),
        (("seeds=2", "seed=1"), "seeds=2: type seed= or seeds=, not both"),
        (("seed=1,2", "search.workers=0"), "search.workers=0: type a whole number of 1 or more"),
    ],
)
def test_invalid_sweeps_are_refused(command: Command, words: tuple[str, ...], message: str):
    outcome = command("-m", *words, *FAST_ANY_MODEL, "name=x")
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def write_experiment(name: str, content: str) -> tuple[str, ...]:
    """Write an experiment, and return the words that select it."""
    folder = Path("mine/experiment")
    folder.mkdir(parents=True)
    (folder / f"{name}.yaml").write_text(f"# @package _global_\n# An experiment\n{content}")
    return ("--config-dir", "mine", f"experiment={name}")


def test_an_experiment_may_be_a_grid(command: Command):
    content = "hydra: {mode: MULTIRUN, sweeper: {params: {seed: '1,2', optimizer.lr: '0.1,0.2'}}}"
    words = write_experiment("mine", content)
    outcome = command(*words, "optimizer.lr=0.3", *FAST, "name=x")
    assert outcome.code == 0, outcome.err
    runs = [Run(path.parent) for path in Path("outputs/x").glob("*/status.json")]
    assert sorted(run.folder.name for run in runs) == ["seed-1", "seed-2"]
    assert {run.resolved["optimizer"]["lr"] for run in runs} == {0.3}


@pytest.mark.slow
def test_an_experiment_may_be_a_search(command: Command):
    """Its command for more seeds is a grid that works."""
    content = (
        "defaults: [{override /search: tpe}]\n"
        "hydra: {mode: MULTIRUN}\n"
        "search: {trials: 1, space: {optimizer.lr: 'tag(log,interval(1e-4,1e-1))'}}\n"
    )
    words = write_experiment("mine", content)
    assert command(*words, *FAST, "name=x").code == 0
    found = read(Path("outputs/x"))
    assert len(found["trials"]) == 1
    repeated = command(*shlex.split(found["command"])[3:])
    assert repeated.code == 0, repeated.err
    assert len(list(Path("outputs/x-best").glob("*/result.json"))) == 3


def test_a_number_of_seeds(command: Command):
    outcome = command("-m", "seeds=2", *FAST, "name=x")
    assert outcome.code == 0, outcome.err
    assert {path.parent.name for path in Path("outputs/x").glob("*/result.json")} == {
        "seed-0",
        "seed-1",
    }
    data = [Run(Path(f"outputs/x/seed-{seed}")).data for seed in (0, 1)]
    assert data[0] == data[1]  # the same images are held out for validation
    assert "written to" not in command("-m", "seed=0,1", *FAST, "name=x").out
    alone = command("seeds=2", *FAST, "name=y")
    assert alone.code == 1
    assert "seeds= trains several runs: type python -m vision_lab -m ..." in alone.err


def test_a_search_requires_multirun(command: Command):
    for words in (("search=tpe",), ("search=tpe", "search.workers=2")):
        outcome = command(*words, *FAST, "name=x")
        assert outcome.code == 1
        assert "a search is a command with -m: type python -m vision_lab -m" in outcome.err


def test_a_metric_that_no_epoch_reports(command: Command):
    outcome = command(*SEARCH, *SMALL, "search.trials=1", "search.metric=val/miou")
    assert outcome.code != 0
    assert (
        "search.metric=val/miou: there is no such metric: type one of val/accuracy" in outcome.err
    )
    assert "Traceback" not in outcome.err


def test_a_search_ends_when_all_trials_fail(command: Command):
    words = ("-m", "search=tpe", SPACE[0], "model.freeze=nowhere", *FAST_ANY_MODEL, "name=x")
    outcome = command(*words, "search.trials=9")
    assert outcome.code != 0
    assert "all 3 trials have failed, the last one with: model.freeze=nowhere: type" in outcome.err


def test_a_search_without_optuna(command: Command, monkeypatch: pytest.MonkeyPatch):
    real_import = builtins.__import__

    def without_optuna(name: str, *arguments: Any, **named: Any) -> Any:
        if name.split(".")[0] == "optuna":
            raise ModuleNotFoundError("No module named 'optuna'", name="optuna")
        return real_import(name, *arguments, **named)

    for name in [
        name
        for name in sys.modules
        if name.startswith(("vision_lab.search.study", "vision_lab.search.trials"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_optuna)
    outcome = command(*SEARCH, *SMALL)
    assert outcome.code == 2
    assert (
        "a search requires the package optuna: type pip install 'vision_lab[search]'" in outcome.err
    )
