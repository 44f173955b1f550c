"""Metrics of an epoch: the table, the printed line, and their state in checkpoints."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vision_lab.callbacks.epoch_metrics import EpochSummary, MetricsCsv


def make_trainer(folder: Path, **metrics: float) -> Any:
    return SimpleNamespace(
        current_epoch=0,
        max_epochs=3,
        global_step=5,
        lightning_module=SimpleNamespace(automatic_optimization=True),
        sanity_checking=False,
        is_global_zero=True,
        default_root_dir=str(folder),
        callback_metrics={
            name.replace("_", "/"): torch.tensor(value) for name, value in metrics.items()
        },
    )


def test_a_row_joins_the_last_validation_and_the_training(tmp_path: Path):
    callback = MetricsCsv()
    callback.on_validation_end(make_trainer(tmp_path, val_loss=2.0, train_loss=9.0), None)
    callback.on_train_epoch_end(make_trainer(tmp_path, train_loss=1.0), None)
    text = (tmp_path / "metrics.csv").read_text()
    assert text == "epoch,step,train/loss,val/loss\n0,5,1.0,2.0\n"


def test_an_epoch_without_validation_has_no_old_metrics(tmp_path: Path):
    callback = MetricsCsv()
    callback.on_validation_end(make_trainer(tmp_path, val_loss=2.0), None)
    callback.on_train_epoch_end(make_trainer(tmp_path, train_loss=1.0), None)
    callback.on_train_epoch_end(make_trainer(tmp_path, train_loss=0.5), None)
    assert "val/loss" not in callback.rows[1]


def test_a_restored_table_continues(tmp_path: Path):
    callback = MetricsCsv()
    callback.on_train_epoch_end(make_trainer(tmp_path, train_loss=1.0), None)
    callback.on_validation_end(make_trainer(tmp_path, val_loss=3.0), None)
    restored = MetricsCsv()
    restored.load_state_dict(callback.state_dict())
    restored.on_train_epoch_end(make_trainer(tmp_path, train_loss=0.5), None)
    assert [row.get("val/loss") for row in restored.rows] == [None, 3.0]


def test_the_line_has_the_selected_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    callback = EpochSummary(["loss"])
    callback.on_train_epoch_end(make_trainer(tmp_path, train_loss=1.0, train_f1=0.5), None)
    assert capsys.readouterr().out == "epoch 1/3  train/loss 1.000\n"


def test_the_sanity_check_is_not_an_epoch(tmp_path: Path):
    callback = MetricsCsv()
    trainer = make_trainer(tmp_path, val_loss=2.0)
    trainer.sanity_checking = True
    callback.on_validation_end(trainer, None)
    assert callback.val_metrics == {}
