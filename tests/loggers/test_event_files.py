"""Event files, read by TensorBoard's own code, as it does for its pages."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.backend_context import Context

from vision_lab.loggers.event_files import EventFile, name_results


def read_columns(folder: Path) -> tuple[dict[str, bool], set[str]]:
    """Return whether each setting differs, and the metrics, as the page HPARAMS shows them."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    context = Context(TBContext(data_provider=provider))
    experiment = context.experiment_from_metadata(
        RequestContext(),
        "",
        True,
        context.hparams_metadata(RequestContext(), ""),
        [],
    )
    settings = {info.name: info.differs for info in experiment.hparam_infos}
    return settings, {info.name.tag for info in experiment.metric_infos}


def write_run(folder: Path, settings: dict[str, str | float | bool], metric: str) -> None:
    curves = EventFile(folder)
    curves.add_scalars({f"train/{metric}": 0.5}, step=1)
    curves.close()
    row = EventFile(folder / "hparams")
    row.start_session(settings)
    row.add_scalars(name_results({f"val/{metric}": 0.5}, [f"val/{metric}", "test/loss"]), step=1)
    row.end_session("finished")
    row.close()


def test_runs_of_several_tasks_have_the_columns_of_all(tmp_path: Path):
    write_run(tmp_path / "a", {"model": "vgg", "lr": 0.1, "nesterov": True}, "accuracy")
    write_run(tmp_path / "b", {"model": "vgg", "lr": 0.2, "head": "yolo"}, "map")
    settings, metrics = read_columns(tmp_path)
    assert settings == {"model": False, "lr": True, "nesterov": False, "head": False}
    assert metrics == {"with best checkpoint/val/accuracy", "with best checkpoint/val/map"}


def test_a_new_file_replaces_earlier_ones(tmp_path: Path):
    for lr in (0.1, 0.2):
        write_run(tmp_path / "a", {"lr": lr}, "accuracy")
    assert len(list((tmp_path / "a" / "hparams").iterdir())) == 1
    assert read_columns(tmp_path)[0] == {"lr": False}


@pytest.mark.parametrize("names", [(), ("test/f1",)])
def test_metrics_that_are_absent_have_no_column(names: tuple[str, ...]):
    assert name_results({"val/accuracy": 0.5}, names) == {}
