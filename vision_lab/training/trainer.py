"""Lightning's Trainer, with settings of how a CPU computes."""

from __future__ import annotations

import os
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from vision_lab.core.allocator import keep_freed_memory
from vision_lab.core.arguments import Count
from vision_lab.core.machine import available_cores
from vision_lab.training.memory_format import MemoryFormat


class Trainer(pl.Trainer):
    """Lightning's Trainer, with settings of how a CPU computes.

    Args:
        threads: threads of an operation on the CPU, in each process; "auto" for all available cores
            divided by the processes on this machine, or ``OMP_NUM_THREADS`` if it is set.
        channels_last: whether images and feature maps have the channels of a pixel adjacent in
            memory; see ``choose_memory_format`` for "auto".
        compile: whether to compile networks with ``torch.compile``.
        keep_memory: whether the process keeps memory that is freed; see ``keep_freed_memory``.
        arguments: arguments of Lightning's Trainer.
    """

    def __init__(
        self,
        *,
        threads: Literal["auto"] | Count = "auto",
        channels_last: MemoryFormat = "auto",
        compile: bool = False,
        keep_memory: bool = True,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.channels_last = channels_last
        self.compile = compile
        if keep_memory:
            keep_freed_memory()
        if threads != "auto":
            torch.set_num_threads(threads)
        elif "OMP_NUM_THREADS" not in os.environ:
            processes = self.num_devices if self.strategy.root_device.type == "cpu" else 1
            torch.set_num_threads(max(1, available_cores() // processes))
