"""How far unfinished runs are."""

from pathlib import Path

from tests.compare.made_runs import make_run
from vision_lab.compare.progress import describe_active
from vision_lab.compare.runs import find_runs, read_runs


def test_the_last_epoch_of_active_runs(tmp_path: Path):
    config = {"trainer.max_epochs": 10}
    running = make_run(tmp_path / "a", score=0, state="running", config=config)
    (running / "metrics.csv").write_text("epoch,step,val/accuracy\n0,3,0.5\n1,6,0.61\n")
    make_run(tmp_path / "b", score=0, state="pending", config=config)
    make_run(tmp_path / "c", score=0, state="failed")
    torn = make_run(tmp_path / "d", score=0, state="running", config=config)
    (torn / "metrics.csv").write_text("epoch,st")
    foreign = make_run(tmp_path / "e", score=0, state="running")
    (foreign / "metrics.csv").write_text("epoch,step\nlast,3\n")
    _, left_out = read_runs(find_runs([str(tmp_path)]))
    assert describe_active(left_out) == [
        f"{tmp_path / 'a'}: epoch 2 of 10, val/accuracy 0.6100",
        f"{tmp_path / 'b'}: pending",
        f"{tmp_path / 'd'}: running",
        f"{tmp_path / 'e'}: running",
    ]
