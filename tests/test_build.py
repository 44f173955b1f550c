"""Parts of a config become objects that fit together."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from tests.builders import composed
from vision_lab import build
from vision_lab.core.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("hydra_resolvers")


@pytest.mark.parametrize(
    ("words", "processes", "lr"),
    [
        ((), 4, 0.1),
        (("optimizer.lr_reference_batch_size=256",), 1, 0.025),
        (("optimizer.lr_reference_batch_size=256",), 8, 0.2),
        (("optimizer.lr_reference_batch_size=256", "trainer.accumulate_grad_batches=2"), 8, 0.4),
    ],
)
def test_the_learning_rate_scales_with_the_batch_on_request(
    words: tuple[str, ...], processes: int, lr: float
):
    config = composed("optimizer=sgd", "data.batch_size=64", *words)
    optimizer = build.optimizer(config, processes=processes)(named_parameter())
    assert optimizer.param_groups[0]["lr"] == pytest.approx(lr)


def named_parameter() -> list[tuple[str, nn.Parameter]]:
    return [("weight", nn.Parameter(torch.zeros(1)))]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("optimizer=adamw",), True),
        (("optimizer=sgd",), True),
        (("optimizer=adamw", "+optimizer.foreach=true"), None),
        (("optimizer=adamw", "trainer.precision=bf16-mixed"), None),
    ],
)
def test_optimizers_on_cpus_are_fused(words: tuple[str, ...], expected: bool | None):
    optimizer = build.optimizer(composed(*words))(named_parameter())
    assert optimizer.param_groups[0]["fused"] is expected


def test_overrides_of_an_optimizer_replace_its_settings():
    make = build.optimizer(composed("optimizer=sgd"))
    group = make(named_parameter(), lr=0.5, momentum=0.0).param_groups[0]
    assert (group["lr"], group["momentum"]) == (0.5, 0.0)


def test_initial_weights_depend_on_the_seed_only():
    networks = []
    for seed in (1, 1, 2):
        config = composed("model=squeezenet1_1", f"seed={seed}")
        torch.rand(7)  # must not matter
        networks.append(build.network(config, build.spec(config)).module.state_dict())
    first, again, other = networks
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_weights_of_a_file_are_noted(tmp_path: Path):
    config = composed("model=squeezenet1_1")
    spec = replace(build.spec(config), channels=3)
    file = tmp_path / "w.pth"
    torch.save(build.network(config, spec).module.state_dict(), file)
    loaded = build.network(composed("model=squeezenet1_1", f"model.weights={file}"), spec)
    assert loaded.notes[0].startswith("w.pth: 52 of 52 tensors loaded")
    assert loaded.missing_keys == ()


def test_a_task_without_targets_does_not_read_masks():
    config = composed("task=generate", "data=scenes")
    assert build.spec(config).target_type == "none"


def test_loggers_write_into_the_run_folder(tmp_path: Path):
    trainer = build.trainer(composed("logger=csv", "trainer=cpu", "callbacks={}"), tmp_path)
    (logger,) = trainer.loggers
    assert isinstance(logger, CSVLogger)
    assert Path(logger.save_dir) == tmp_path


def test_callbacks_that_are_null_or_not_asked_for_are_not_built():
    config = composed("callbacks.hparams=null")
    names = [type(callback).__name__ for callback in build.callbacks(config)]
    assert "HparamsLogger" not in names
    assert "StepLogger" in names
    (only,) = build.callbacks(config, only=["progress_bar"])
    assert type(only).__name__ == "ProgressBar"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "+callbacks.mine={_target_: torch.nn.ReLU}",
            "callbacks.mine is a ReLU, but must be a Callback",
        ),
        (
            "+callbacks.mine={_target_: pytorch_lightning.callbacks.ModelCheckpoint, save_top_k: -3}",
            "callbacks.mine cannot be built: ",
        ),
    ],
)
def test_objects_of_another_class_are_refused(word: str, message: str):
    with pytest.raises(ConfigurationError) as caught:
        build.callbacks(composed(word))
    assert str(caught.value).startswith(message)


def test_a_machine_without_the_devices_is_advised(tmp_path: Path):
    if torch.cuda.is_available():
        pytest.skip("this machine has GPUs")
    with pytest.raises(ConfigurationError, match=r"Type trainer=auto to use the devices"):
        build.trainer(composed("trainer=gpu", "logger=none"), tmp_path, callbacks=[])


def test_a_task_of_another_class_is_refused():
    config = composed()
    config.values["task"] = {"_target_": "builtins.dict", "target_type": "labels"}
    network = build.network(config, build.spec(config))
    with pytest.raises(ConfigurationError, match=r"creates a dict, but must create a subclass"):
        build.task(config, network)
