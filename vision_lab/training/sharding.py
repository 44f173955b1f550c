"""Fully sharded data parallelism: each process keeps a part of parameters and optimizer states.

A checkpoint contains whole tensors, like that of one process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.optimizer import _optimizers_to_device
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


class ShardedStrategy(ModelParallelStrategy):
    """Trains with fully sharded data parallelism (torch's ``fully_shard``).

    Parameters are gathered one unit at a time: the smallest modules that have ``unit_size``
    parameters. For evaluation they are gathered once, so that processes may have different numbers
    of batches.

    Args:
        unit_size: number of parameters of a unit, at least.
    """

    def __init__(self, unit_size: int = 1_000_000) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)
        self.unit_size = unit_size

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: pl.Trainer) -> None:
        """Divide the network between the processes, and create the optimizers."""
        assert self.model is not None
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        is_fitting = trainer.state.fn == TrainerFn.FITTING
        if is_fitting and self._layer_sync:
            self.model = self._layer_sync.apply(self.model)
        self.model = self.precision_plugin.convert_module(self.model)
        self._shard()
        self.model_to_device()
        self.barrier()
        if is_fitting:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        if is_fitting:
            _optimizers_to_device(self.optimizers, self.root_device)

    def _shard(self) -> None:
        task: Any = self.lightning_module
        network, inputs = task.flop_inputs()
        if isinstance(network, FSDPModule):  # by an earlier fit or test
            return
        mesh = self.device_mesh["data_parallel"]
        zeros = [torch.zeros_like(value, device="cpu") for value in inputs]
        shard_network(
            network,
            mesh,
            forward=lambda: network(*zeros),
            unit_size=self.unit_size,
        )
        for module in task.children():  # such as a loss with parameters
            if not isinstance(module, FSDPModule) and list(module.parameters()):
                fully_shard(module, mesh=mesh)

    def on_validation_start(self) -> None:
        self._start_evaluation()

    def on_test_start(self) -> None:
        self._start_evaluation()

    def on_validation_end(self) -> None:
        self._end_evaluation()

    def on_test_end(self) -> None:
        self._end_evaluation()

    def _start_evaluation(self) -> None:
        """Gather all parameters until the end, and use the statistics of rank 0, as DDP does."""
        self._broadcast_buffers()
        for module in self._sharded_modules():
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()

    def _end_evaluation(self) -> None:
        for module in self._sharded_modules():
            module.set_reshard_after_forward(True, recurse=False)
            module.reshard()

    def _sharded_modules(self) -> list[FSDPModule]:
        assert self.model is not None
        return [module for module in self.model.modules() if isinstance(module, FSDPModule)]

    def _broadcast_buffers(self) -> None:
        assert self.model is not None
        for buffer in self.model.buffers():
            torch.distributed.broadcast(buffer, src=0)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.model is not None
        self._broadcast_buffers()
        return gather_state_dict(self.model)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.model is not None
        load_state_dict(self.model, checkpoint["state_dict"], strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state of an optimizer with whole tensors; a collective operation."""
        state = optimizer.state_dict()
        values = {}
        for index, entries in state["state"].items():
            values[index] = {name: _gather(value) for name, value in entries.items()}
        return {**state, "state": values}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = []
            for group in optimizer.param_groups:
                parameters += group["params"]
            values = {}
            for index, entries in state["state"].items():
                parameter = parameters[index]
                values[index] = {
                    name: _shard_like(value, parameter) for name, value in entries.items()
                }
            optimizer.load_state_dict({**state, "state": values})

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)


def shard_network(
    network: nn.Module,
    mesh: DeviceMesh,
    *,
    forward: Callable[[], Any],
    unit_size: int,
) -> None:
    """Divide the parameters of a network between processes, in place.

    Args:
        network: the network, the same one in all processes.
        mesh: the processes, in one dimension.
        forward: a forward pass of the network, which shows the modules that can be units: those
            that are called, once. The parameters of others belong to the unit around them.
        unit_size: number of parameters of a unit, at least.
    """
    calls = _count_calls(network, forward)
    # In reverse order, the modules within a module come before it.
    for module in reversed(list(network.modules())):
        is_leaf = not list(module.children())  # such as a layer whose weight is used without a call
        if module is network or is_leaf or calls[module] != 1:
            continue
        size = 0
        for parameter in module.parameters():
            if not isinstance(parameter, DTensor):
                size += parameter.numel()
        if size >= unit_size:
            fully_shard(module, mesh=mesh)
    fully_shard(network, mesh=mesh)


def _count_calls(network: nn.Module, forward: Callable[[], Any]) -> Counter[nn.Module]:
    calls: Counter[nn.Module] = Counter()
    handles = []
    for module in network.modules():
        handles.append(module.register_forward_pre_hook(lambda called, _: calls.update([called])))
    try:
        with torch.no_grad(), _evaluation_mode(network):
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return calls


@contextmanager
def _evaluation_mode(network: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, is_training in modes.items():
            module.training = is_training


def is_sharded(module: nn.Module) -> bool:
    """Return whether the parameters of a module are divided between processes."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def gather_state_dict(module: nn.Module) -> dict[str, Any]:
    """Return the state of a module with whole tensors; a collective operation if it is sharded."""
    return {name: _gather(value) for name, value in module.state_dict().items()}


def load_state_dict(
    module: nn.Module,
    state: Mapping[str, Any],
    *,
    strict: bool = True,
) -> None:
    """Load whole tensors into a module, which may be sharded.

    Args:
        module: the module.
        state: its state, in each process.
        strict: whether all keys must match.

    Raises:
        RuntimeError: if the state does not fit.
    """
    own = module.state_dict()
    values = {name: _shard_like(value, own.get(name)) for name, value in state.items()}
    module.load_state_dict(values, strict=strict)


def _gather(value: Any) -> Any:
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def _shard_like(value: Any, other: Tensor | None) -> Any:
    """Return the part of a whole tensor that belongs to this process, if the other is sharded."""
    if not isinstance(other, DTensor) or not isinstance(value, Tensor):
        return value
    if value.shape != other.shape:  # such as a counter of steps
        return value
    whole = value.to(other.device)
    mesh, placements = other.device_mesh, other.placements
    return distribute_tensor(whole, mesh, placements, src_data_rank=None)
