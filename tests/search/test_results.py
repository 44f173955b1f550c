"""What is printed of a search: how far it is, and the command for more seeds."""

from pathlib import Path

from tests.search.test_study import search
from vision_lab.search.results import describe_progress, find_best, repeat_command, trial_name
from vision_lab.search.space import parse_space


def test_progress_names_the_best_trial(tmp_path: Path):
    study = search(tmp_path, count=0)
    assert describe_progress(study) == "14 trials"
    study = search(tmp_path, count=3)
    (best,) = find_best(study)
    value = max(trial.value for trial in study.trials)
    assert describe_progress(study) == (
        f"14 trials: 3 finished; best so far: val/accuracy {value:.4g} ({trial_name(best)})"
    )
    with study.claim_trial():
        assert describe_progress(study).startswith("14 trials: 3 finished, 1 running; best so far")


def test_the_command_for_more_seeds_quotes_what_needs_it(tmp_path: Path):
    fixed = ["data.root='/data/leaves'", "run='/a folder'", "seed=3", "name=x", "search=tpe"]
    space = parse_space(["optimizer.lr=interval(0.5,0.6)", *fixed], {})
    study = search(tmp_path / "leaves", space=space, count=1)
    (trial,) = study.trials
    assert repeat_command(study, trial) == (
        """python -m vision_lab -m data.root=/data/leaves 'run='"'"'/a folder'"'"'' """
        f"optimizer.lr={trial.params['optimizer.lr']} seed=1,2,3 name=leaves-best"
    )
