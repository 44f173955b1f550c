"""A task without a report of its own."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

from tests.builders import FAST_WITH_IMAGES, Outcome


def test_a_task_without_a_report_trains_is_evaluated_and_predicts(
    command: Callable[..., Outcome], make_folder: Callable[..., Path]
):
    root = make_folder()
    words = (*FAST_WITH_IMAGES, "data=folder", f"data.root={root}", "model.network.depth=8")
    trained = command(*words, "data.spec.image_size=[16,16]", "~task.report", "name=x")
    assert trained.code == 0, trained.err
    run = Path("outputs/x")
    result = json.loads((run / "result.json").read_text())
    assert "test/accuracy" in result["metrics"]
    assert result["per_class"] == {}
    assert not (run / "images").exists()
    evaluated = command("mode=evaluate", "run=outputs/x")
    assert evaluated.code == 0, evaluated.err
    assert "bit-exactly the result reported after training" in evaluated.out
    predicted = command("mode=predict", "run=outputs/x", f"source={root}/ash")
    assert predicted.code == 0, predicted.err
    with (run / "predict/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert set(rows[0]) == {"path"}
