"""Possible label errors, and samples on which groups differ, from the losses that runs list."""

from pathlib import Path

from tests.compare.made_runs import make_run
from vision_lab.compare.comparison import Comparison, compare_runs
from vision_lab.compare.runs import find_runs, read_runs
from vision_lab.compare.samples import find_disagreements, find_label_errors

COLUMNS = "split,sample,target,predicted,confidence,loss"


def compare_losses(folder: Path, losses: dict[tuple[float, int], list[str]]) -> Comparison:
    """Compare runs of several learning rates and seeds that list these samples."""
    for (lr, seed), rows in losses.items():
        config = {"optimizer.lr": lr, "seed": seed}
        run = make_run(folder / f"{lr}-{seed}", score=0.9 - lr, config=config)
        (run / "sample_losses.csv").write_text("\n".join([COLUMNS, *rows]) + "\n")
    return compare_runs(*read_runs(find_runs([str(folder)])))


def test_label_errors_are_samples_that_most_runs_predict_otherwise(tmp_path: Path):
    wrong = "train,train 7,coat,bag,0.9,{}"
    comparison = compare_losses(
        tmp_path,
        {
            (0.1, 0): [wrong.format(5), "train,train 1,coat,dress,0.9,4", "val,x,bag,bag,0.4,3"],
            (0.1, 1): [wrong.format(3), "val,x,bag,bag,0.4,3", "test,y.png,bag,coat,0.9,2"],
            (0.1, 2): ["test,y.png,bag,coat,0.9,4", "val,train 7,coat,dress,0.9,1"],
        },
    )
    votes, num_runs = find_label_errors(comparison)
    assert num_runs == 3
    # "train 1" is listed by one run only, and "x" is predicted as labeled.
    assert [(vote.sample, vote.majority) for vote in votes] == [
        ("y.png", ("coat", 2)),
        ("train 7", ("bag", 2)),  # its loss is low in one of the runs
    ]
    assert votes[1].to_row(num_runs) == {
        "sample": "train 7",
        "split": "train",
        "label": "coat",
        "predicted": "bag",
        "runs": "2 of 3",
        "loss": 3.0,
    }


def test_one_run_is_no_evidence(tmp_path: Path):
    comparison = compare_losses(tmp_path, {(0.1, 0): ["train,train 7,coat,bag,0.9,5"]})
    assert find_label_errors(comparison) == ([], 1)


def test_damaged_lists_are_left_out(tmp_path: Path):
    rows = ["train,train 7,coat,bag,0.9,5"]
    losses = {
        (0.1, 0): ["train,x,coat,bag,0.9,high"],
        (0.1, 1): rows,
        (0.1, 2): ["train,x,coat,bag,0.9,nan", *rows],
    }
    comparison = compare_losses(tmp_path, losses)
    (tmp_path / "0.1-1" / "sample_losses.csv").write_bytes(b"\xff\x00")
    votes, num_runs = find_label_errors(comparison)
    assert num_runs == 2
    assert [vote.losses for vote in votes] == []  # one of two is no majority


def test_groups_differ_in_test_images_on_which_the_reference_is_better(tmp_path: Path):
    both = "test,a.png,coat,bag,0.9,{}"
    comparison = compare_losses(
        tmp_path,
        {
            (0.1, 0): [both.format(3)],
            (0.2, 0): [both.format(4), "test,b.png,coat,bag,0.9,3", "train,c.png,coat,bag,0.9,9"],
        },
    )
    found = find_disagreements(comparison)
    assert list(found) == ["optimizer.lr=0.2"]
    votes, num_runs = found["optimizer.lr=0.2"]
    assert [vote.sample for vote in votes] == ["b.png", "a.png"]
    assert num_runs == 1


def test_lists_of_others_may_be_cut_or_repeat_a_sample(tmp_path: Path):
    row = "train,train 7,coat,bag,0.9,5"
    losses = {(0.1, 0): [row] * 3, (0.1, 1): [row, "train,train 8,coat,bag"]}
    votes, num_runs = find_label_errors(compare_losses(tmp_path, losses))
    assert num_runs == 2
    assert [(vote.sample, vote.majority) for vote in votes] == [("train 7", ("bag", 2))]
