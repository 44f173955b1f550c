"""Settings of how a CPU computes: threads, memory format and memory."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torchvision import models

from tests.builders import Outcome
from vision_lab.core import allocator, machine
from vision_lab.training import trainer as module
from vision_lab.training.memory_format import choose_memory_format
from vision_lab.training.trainer import Trainer

QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


@pytest.mark.parametrize(("devices", "expected"), [(1, 6), (2, 3), (8, 1)])
def test_cores_are_divided_by_processes(
    monkeypatch: pytest.MonkeyPatch, devices: int, expected: int
):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(module, "available_cores", lambda: 6)
    Trainer(**QUIET, devices=devices)
    assert torch.get_num_threads() == expected


def test_threads_that_were_typed_and_those_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    Trainer(**QUIET, devices=1, threads=3)
    assert torch.get_num_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    Trainer(**QUIET, devices=1)
    assert torch.get_num_threads() == 3  # torch has read the variable itself


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 16),
        ({"cpu.max": "max 100000\n"}, 16),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
        ({"cpu.max": "3200000 100000\n"}, 16),
    ],
)
def test_limits_of_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    assert machine.available_cores() == expected


@pytest.mark.parametrize(
    ("network", "device", "half", "expected"),
    [
        (models.resnet18, "cpu", False, True),
        (models.resnet18, "cuda", False, False),
        (models.resnet18, "cuda", True, True),
        (models.vit_b_16, "cpu", False, False),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 3, 2)),
            "cpu",
            False,
            False,
        ),
    ],
)
def test_the_memory_format_depends_on_network_and_device(
    network: object, device: str, half: bool, expected: bool
):
    with torch.device("meta"):
        made = network()  # type: ignore[operator]
    for setting, result in (("auto", expected), (True, True), (False, False)):
        memory_format = choose_memory_format(
            made,
            channels_last=setting,  # type: ignore[arg-type]
            device=torch.device(device),
            is_half_precision=half,
        )
        assert (memory_format is torch.channels_last) is result


@pytest.fixture
def layouts() -> Iterator[list[bool]]:
    """Whether the input of each convolution and its weights are channels last."""
    found = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            for tensor in (inputs[0], module.weight):
                if (
                    not tensor.is_meta and min(tensor.shape[1:]) > 1
                ):  # otherwise both formats are the same
                    found.append(tensor.is_contiguous(memory_format=torch.channels_last))

    handle = register_module_forward_pre_hook(record)
    yield found
    handle.remove()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["task=classify", "model=resnet20"], True),
        (["task=classify", "model=resnet20", "trainer.channels_last=false"], False),
        (["task=segment", "head=fcn"], True),
        (["task=detect"], True),
        pytest.param(["task=generate"], False, marks=pytest.mark.slow),
    ],
)
def test_every_task_computes_in_the_format_of_its_network(
    command: Callable[..., Outcome], layouts: list[bool], words: list[str], expected: bool
):
    outcome = command(*words, "debug=fast", "trainer=cpu", "name=formats")
    assert outcome.code == 0, outcome.err
    assert len(layouts) > 10 or not expected
    assert all(layouts) if expected else not any(layouts)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_compiled_networks_are_trained_alike(
    command: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A minute of compilation; the published names of parameters stay the same."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    words = ("model=resnet20", "trainer.limit_train_batches=3", "debug=fast", "trainer=cpu")
    states = []
    for name, compiled in (("eager", "false"), ("compiled", "true")):
        outcome = command(*words, f"name={name}", f"trainer.compile={compiled}")
        assert outcome.code == 0, outcome.err
        path = tmp_path / "outputs" / name / "model.pth"
        states.append(torch.load(path, weights_only=True))
    assert list((tmp_path / "compiled").rglob("*.so"))
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], atol=1e-3), name


def test_freed_memory_is_kept_on_glibc_only(monkeypatch: pytest.MonkeyPatch):
    assert allocator.keep_freed_memory()
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert not allocator.keep_freed_memory()


def test_peak_memory_is_that_of_one_run():
    large = torch.ones(100_000_000)  # 400 MB
    before = machine.peak_memory_bytes()
    del large
    allocator.return_freed_memory()
    machine.reset_peak_memory()
    after = machine.peak_memory_bytes()
    assert before is not None
    assert after is not None
    assert after < before - 300_000_000
