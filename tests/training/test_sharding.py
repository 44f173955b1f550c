"""Division of a network between processes, here a single one; two are in tests/modes."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from vision_lab.training.sharding import (
    gather_state_dict,
    is_sharded,
    load_state_dict,
    shard_network,
)


class Network(nn.Module):
    """A network with parts that can be units, and parts that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.shared = nn.Sequential(nn.Linear(4, 4))
        self.parts = nn.Sequential(nn.Linear(4, 4))
        self.small = nn.Sequential(nn.Linear(4, 1))

    def forward(self, values: Tensor) -> Tensor:
        values = self.shared(self.shared(self.block(values)))
        for part in self.parts:  # the sequence itself is not called
            values = part(values)
        output: Tensor = self.small(values)
        return output


def run_alone(check: Callable[[DeviceMesh], None], folder: Path) -> None:
    """Run a check in a process of its own: later tests fork, which threads of gloo do not survive."""

    def run() -> None:
        store = dist.FileStore(str(folder / "store"), 1)
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        check(init_device_mesh("cpu", (1,)))
        dist.destroy_process_group()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    if process.exitcode is None:
        process.kill()
    assert process.exitcode == 0


def check_units(mesh: DeviceMesh) -> None:
    network = Network()
    network.block[1].eval()
    values = torch.ones(2, 4)
    expected = network(values)
    shard_network(network, mesh, forward=lambda: network(values), unit_size=20)
    units = [name for name, module in network.named_modules() if isinstance(module, FSDPModule)]
    assert units == ["", "block"]
    assert all(isinstance(parameter, DTensor) for parameter in network.parameters())
    assert is_sharded(network)
    assert not is_sharded(Network())
    assert network.training
    assert not network.block[1].training
    assert torch.equal(network(values), expected)


def check_whole_tensors(mesh: DeviceMesh) -> None:
    network, other = Network(), Network()
    expected = {name: value.clone() for name, value in other.state_dict().items()}
    shard_network(network, mesh, forward=lambda: network(torch.ones(1, 4)), unit_size=20)
    load_state_dict(network, expected)
    gathered = gather_state_dict(network)
    assert list(gathered) == list(expected)
    for name, value in gathered.items():
        assert type(value) is Tensor
        assert torch.equal(value, expected[name])
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_state_dict(network, {**expected, "block.0.weight": torch.ones(3, 3)})
    with pytest.raises(RuntimeError, match="Missing key"):
        load_state_dict(network, {})


def test_units_are_modules_that_are_called_once(tmp_path: Path):
    run_alone(check_units, tmp_path)


def test_whole_tensors_are_gathered_and_loaded(tmp_path: Path):
    run_alone(check_whole_tensors, tmp_path)
