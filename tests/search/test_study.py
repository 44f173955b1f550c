"""Trials of a study: their order, what survives a kill, several processes, other settings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

from vision_lab.core.errors import ConfigurationError
from vision_lab.search.settings import SearchSettings
from vision_lab.search.space import SearchSpace, parse_space
from vision_lab.search.study import STUDY_FILENAME, SearchStudy, TrialReporter

SPACE = parse_space(
    ["optimizer.lr=tag(log,interval(1e-4,1))", "model=resnet20,resnet32", "name=x"], {}
)
SETTINGS = SearchSettings(
    sampler={"_target_": "optuna.samplers.TPESampler", "multivariate": True},
    trials=14,
    metrics=("val/accuracy",),
    directions=("max",),
    pruner="median",
    seed=3,
)
SAMPLERS = {
    "tpe": {"_target_": "optuna.samplers.TPESampler", "multivariate": True, "constant_liar": True},
    "random": {"_target_": "optuna.samplers.RandomSampler"},
    "cmaes": {"_target_": "optuna.samplers.CmaEsSampler"},
    "qmc": {"_target_": "optuna.samplers.QMCSampler", "scramble": True},
}
NUMBERS = parse_space(["optimizer.lr=interval(0,1)", "optimizer.weight_decay=interval(0,1)"], {})


def score(trial: FrozenTrial) -> float:
    return sum(value if isinstance(value, float) else 0.1 for value in trial.params.values())


def search(folder: Path, *, space: SearchSpace = SPACE, count: int = 100, **changes) -> SearchStudy:
    """Run at most a number of trials, in a study that is opened for them."""
    study = SearchStudy(folder, space, replace(SETTINGS, **changes))
    for _ in range(count):
        with study.claim_trial() as trial:
            if trial is None:
                break
            study.finish(trial, [score(trial)])
    return study


def params(study: SearchStudy) -> list[dict[str, object]]:
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", SAMPLERS)
def test_interrupted_searches_have_the_same_trials(name: str, tmp_path: Path):
    """Opened again for each trial, of which one in three is abandoned after it was written."""
    arguments = {"space": NUMBERS, "sampler": SAMPLERS[name]}
    whole = search(tmp_path / "whole", **arguments)
    for step in range(40):
        study = SearchStudy(tmp_path / "parts", NUMBERS, replace(SETTINGS, sampler=SAMPLERS[name]))
        with study.claim_trial() as trial:
            if trial is None:
                break
            if step % 3:
                study.finish(trial, [score(trial)])
    assert trial is None
    assert params(study) == params(whole)
    assert len(study.trials) == 14
    assert len({json.dumps(found) for found in params(study)}) == 14
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


def test_the_seed_selects_the_values(tmp_path: Path):
    first = params(search(tmp_path / "a", count=3))
    assert params(search(tmp_path / "b", count=3)) == first
    assert params(search(tmp_path / "c", count=3, seed=4)) != first


def test_tpe_finds_better_values_than_random_ones(tmp_path: Path):
    """On a smooth function, over three seeds."""
    bests = {}
    for name in ("tpe", "random"):
        bests[name] = 0.0
        for seed in range(3):
            study = search(
                tmp_path / f"{name}{seed}",
                space=NUMBERS,
                sampler=SAMPLERS[name],
                trials=30,
                seed=seed,
            )
            bests[name] += max(trial.values[0] for trial in study.trials)
    assert bests["tpe"] > bests["random"]


def test_a_larger_total_continues(tmp_path: Path):
    first = params(search(tmp_path, trials=4))
    assert len(first) == 4
    more = params(search(tmp_path, trials=6))
    assert more[:4] == first
    assert len(more) == 6


def test_a_grid_has_each_combination_once(tmp_path: Path):
    space = parse_space(["model=resnet20,resnet32", "head.num_convs=range(1,4)"], {})
    study = search(tmp_path, space=space, sampler={"_target_": "optuna.samplers.GridSampler"})
    assert len(study.trials) == 6 == len({json.dumps(found) for found in params(study)})


def test_a_grid_of_an_interval_is_refused(tmp_path: Path):
    with pytest.raises(
        ConfigurationError, match=r"search=grid tries all values, but optimizer\.lr"
    ):
        search(tmp_path, sampler={"_target_": "optuna.samplers.GridSampler"})


def test_two_processes_share_no_trial(tmp_path: Path):
    one, two = (SearchStudy(tmp_path, SPACE, replace(SETTINGS, trials=3)) for _ in range(2))
    with one.claim_trial() as first, two.claim_trial() as second:
        assert first is not None
        assert second is not None
        assert (first.number, second.number) == (0, 1)
        assert first.params != second.params
    with two.claim_trial() as again:
        assert again is not None
        assert again.number == 0  # its process has ended without a result


def test_a_failed_trial_is_repeated_if_allowed(tmp_path: Path):
    study = SearchStudy(tmp_path, SPACE, replace(SETTINGS, trials=2))
    with study.claim_trial() as trial:
        study.fail(trial, "out of memory")
    study = search(tmp_path, trials=2)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    study = search(tmp_path, trials=2, retry=1)
    assert len(study.trials) == 3
    assert study.trials[2].params == study.trials[0].params
    assert len(search(tmp_path, trials=2, retry=1).trials) == 3


@pytest.mark.parametrize("torn", [b'{"op_code":4,"worker', b"\x00\x00"])
def test_a_torn_last_line_is_removed(tmp_path: Path, torn: bytes):
    before = params(search(tmp_path, count=5))
    with (tmp_path / STUDY_FILENAME).open("ab") as file:
        file.write(torn)
    study = search(tmp_path)
    assert params(study)[:5] == before
    assert len(study.trials) == 14
    assert params(SearchStudy(tmp_path, SPACE, SETTINGS)) == params(study)


def test_a_damaged_file_is_named(tmp_path: Path):
    search(tmp_path, count=3)
    file = tmp_path / STUDY_FILENAME
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], b"not a line\n", *lines[2:]]))
    with pytest.raises(ConfigurationError, match=r"study\.log is damaged"):
        SearchStudy(tmp_path, SPACE, SETTINGS)


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        (
            ["model=resnet20,resnet44"],
            {},
            "model: resnet20,resnet32 in the search, resnet20,resnet44",
        ),
        (["trainer.max_epochs=3"], {}, "trainer.max_epochs: nothing in the search, 3 now"),
        ([], {"seed": 4}, "search.seed: 3 in the search, 4 now"),
        ([], {"metrics": ("val/f1",)}, r"search.metric: \['val/accuracy'\] in the search"),
    ],
)
def test_another_search_of_the_same_name_is_refused(
    tmp_path: Path, words: list[str], changes: dict[str, object], message: str
):
    search(tmp_path, count=1)
    given = ["optimizer.lr=tag(log,interval(1e-4,1))", "model=resnet20,resnet32", *words]
    with pytest.raises(ConfigurationError, match=message):
        SearchStudy(tmp_path, parse_space(given, {}), replace(SETTINGS, **changes))


def test_unpromising_trials_are_recognized(tmp_path: Path):
    """Below the median of the trials before, at the same epoch."""
    study = SearchStudy(tmp_path, SPACE, SETTINGS)
    for value in (0.5, 0.6, 0.7, 0.8, 0.9):
        with study.claim_trial() as trial:
            reporter = TrialReporter(tmp_path, trial.number, "median")
            assert not reporter.report(value, 0)
            assert not reporter.report(value, 1)
            study.finish(trial, [value])
    with study.claim_trial() as trial:
        reporter = TrialReporter(tmp_path, trial.number, "median")
        assert not reporter.report(0.7, 0)
        assert not reporter.report(0.1, 0)  # reported again after a kill: the first one counts
        assert not TrialReporter(tmp_path, trial.number, "none").report(0.1, 0)
        study.finish(trial, [0.7])
    with study.claim_trial() as trial:
        reporter = TrialReporter(tmp_path, trial.number, "median")
        assert reporter.report(0.65, 0)
        assert reporter.report(0.69, 1)
        study.prune(trial)
    assert study.trials[-1].state == TrialState.PRUNED
    assert study.trials[-1].intermediate_values == {0: 0.65, 1: 0.69}
