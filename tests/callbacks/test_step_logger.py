"""Steps at which losses are logged, and the speed of an epoch."""

from types import SimpleNamespace
from typing import Any

import pytest

from vision_lab.callbacks.step_logger import StepLogger, is_log_step, logged_step


@pytest.mark.parametrize(
    ("interval", "batches"), [(1, [0, 1, 2, 3]), (2, [1, 3]), (50, []), (0, [])]
)
def test_every_n_th_batch_is_logged(interval: int, batches: list[int]):
    trainer: Any = SimpleNamespace(log_every_n_steps=interval)
    assert [batch for batch in range(4) if is_log_step(trainer, batch)] == batches


def test_curves_of_manual_optimization_count_batches():
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=7))
    task = SimpleNamespace(automatic_optimization=False)
    trainer: Any = SimpleNamespace(lightning_module=task, global_step=14, fit_loop=loop)
    assert logged_step(trainer) == 7
    task.automatic_optimization = True
    assert logged_step(trainer) == 14


def test_rows_are_in_checkpoints():
    logger = StepLogger()
    logger.rows.append({"epoch": 0, "seconds": 1.0, "images_per_second": 5.0})
    other = StepLogger()
    other.load_state_dict(logger.state_dict())
    assert other.rows == logger.rows


def test_an_epoch_without_batches_has_no_row():
    logger = StepLogger()
    trainer: Any = SimpleNamespace(current_epoch=0)
    logger.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    assert logger.rows == []
