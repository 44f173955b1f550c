"""Base classes of tasks: a network with its normalization, optimizer, schedule and metrics.

``Task`` has everything that modes and callbacks use, so that none of them needs to know
which task it has.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.protocols import TrainingData
from vision_lab.core.spec import DataSpec
from vision_lab.tasks.reports.base import Report, ReportFactory
from vision_lab.tasks.split_metrics import get_metric_states, set_metric_states
from vision_lab.training.lr_schedules import Schedule, SchedulerFactory
from vision_lab.training.memory_format import choose_memory_format
from vision_lab.training.schedulers import make_lr_scheduler
from vision_lab.training.seeding import seed_all
from vision_lab.training.sharding import gather_state_dict

MonitorMode = Literal["min", "max"]


class Task(pl.LightningModule, ABC):
    """A network that is trained and evaluated.

    The metrics of each split are in ``split_metrics["on_<split>"]``; those of training are part of
    checkpoints.

    Args:
        network: the network to train.
        spec: spec of the data; images are normalized here by its mean and std, and nowhere else.
        optimizer: creates an optimizer for given parameters; keyword arguments override the
            config's settings.
        schedule: maps training progress to a factor of the learning rate; or a factory of a
            scheduler of torch or timm.
        monitor: name of the metric that determines the best checkpoint.
        monitor_mode: whether its best value is the largest ("max") or the smallest ("min").
        seed: seed of each step's random numbers (such as dropout), with epoch, batch and rank.
        report: creates what callbacks and modes show of the task; it may be left out.
    """

    mean: Tensor
    std: Tensor

    generates_images: ClassVar[bool] = False
    """Whether mode=predict generates images instead of reading them."""

    learns_by_gradients = True
    """Whether the task has a loss and optimizers."""

    can_compile = True
    """Whether the task calls its network as a whole, as ``torch.compile`` requires."""

    def __init__(
        self,
        *,
        network: nn.Module,
        spec: DataSpec,
        optimizer: Callable[..., Optimizer],
        schedule: Schedule | SchedulerFactory,
        monitor: str,
        monitor_mode: MonitorMode,
        seed: int,
        report: ReportFactory = Report,
    ) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.optimizer = optimizer
        self.schedule = schedule
        self.monitor = monitor
        self.monitor_mode = monitor_mode
        self.seed = seed
        self.report = report(spec)
        self.training_data: TrainingData | None = None
        """What the task may ask of its data; to be set before training and evaluation."""
        # Not persistent: a checkpoint contains the published keys of the network and no others.
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1), persistent=False)
        self.split_metrics = nn.ModuleDict()
        self.added_metrics: tuple[str, ...] = ()
        """Names of the metrics that were added to those of the task."""
        self.results: dict[str, dict[str, Tensor]] = {}
        """All metrics of each split, after its last epoch."""
        self.memory_format = torch.contiguous_format
        """Memory format of the images that the network receives."""
        self.is_compiled = False

    def setup(self, stage: str) -> None:
        """Bring the network to the memory format of the trainer's device, and compile it."""
        is_sharded = isinstance(self.trainer.strategy, ModelParallelStrategy)
        compiles = getattr(self.trainer, "compile", False)
        if compiles and (is_sharded or not self.can_compile):
            kind = "sharded networks" if is_sharded else "adversarial networks"
            raise ConfigurationError(f"trainer.compile=true is not possible for {kind}: type false")
        if is_sharded:
            return  # parameters are sharded as they are
        self.memory_format = choose_memory_format(
            self.network,
            channels_last=getattr(self.trainer, "channels_last", "auto"),
            device=self.trainer.strategy.root_device,
            is_half_precision=self.trainer.precision in ("16-mixed", "bf16-mixed"),
        )
        self.network.to(memory_format=self.memory_format)
        if compiles and not self.is_compiled:
            self.network.compile()  # in place: the names of parameters stay the same
            self.is_compiled = True

    def require_data(self) -> TrainingData:
        """Return the training data.

        Raises:
            ConfigurationError: if there is none.
        """
        if self.training_data is None:
            raise ConfigurationError(
                f"{type(self).__name__} needs its data: set task.training_data"
            )
        return self.training_data

    def make_lr_scheduler(
        self,
        optimizer: Optimizer,
        *,
        steps: int,
    ) -> dict[str, Any]:
        """Create the scheduler of an optimizer, with Lightning's settings of when it steps.

        Args:
            optimizer: the optimizer.
            steps: total number of its steps.
        """
        return make_lr_scheduler(
            self.schedule,
            optimizer,
            steps=steps,
            monitor=self.monitor,
            monitor_mode=self.monitor_mode,
            check_val_every_n_epoch=self.trainer.check_val_every_n_epoch or 1,
        )

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a scheduler of torch, or one of timm, which is given the epoch or the step."""
        if isinstance(scheduler, LRScheduler):
            super().lr_scheduler_step(scheduler, metric)
        elif cast(SchedulerFactory, self.schedule).interval == "epoch":
            scheduler.step(self.current_epoch + 1, metric)
        else:
            scheduler.step_update(self.trainer.global_step, metric)

    def on_train_batch_start(
        self,
        batch: Any,
        batch_idx: int,
    ) -> None:
        seed_all(self.seed, self.current_epoch, batch_idx, self.global_rank)

    @property
    def step_is_complete(self) -> bool:
        """Whether the last batch completed an optimizer step; for manual optimization."""
        return True

    def network_state_dict(self) -> dict[str, Tensor]:
        """Return the weights to save as ``model.pth``; to be called by all processes."""
        return gather_state_dict(self.network)

    def load_network_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the weights of a ``model.pth``.

        Raises:
            RuntimeError: if they do not fit the network.
        """
        self.network.load_state_dict(state)

    def flop_inputs(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """Return a module and meta-device inputs of a forward pass, to count FLOPs per image."""
        size = (1, self.spec.channels, *self.spec.image_size)
        return self.network, (torch.empty(*size, device="meta"),)

    def learning_rates(self) -> dict[str, float]:
        """Return the current learning rate of each optimizer by name."""
        return {"lr": self.trainer.optimizers[0].param_groups[0]["lr"]}

    @property
    def uses_class_labels(self) -> bool:
        """Whether the task uses class labels; evaluation data must then have the same classes."""
        return True

    def metric_names(self, split: str) -> set[str]:
        """Return the names of the scalar metrics of a split, without the split."""
        return set(dict(self.split_metrics[f"on_{split}"].named_children()))

    def metric_settings(self) -> dict[str, Any]:
        """Return the settings that metrics depend on besides the data, such as a sample count."""
        return {}

    def scalar_metrics(self, split: str) -> dict[str, float]:
        """Return the metrics of a split that are single numbers, by name."""
        results = sorted(self.results[split].items())
        return {name: value.item() for name, value in results if value.ndim == 0}

    def sample_images(self) -> tuple[Tensor, Tensor | None] | None:
        """Generate images that need no data, always the same ones for equal weights.

        Returns:
            (N, C, H, W) uint8 images and, if they have classes, their labels (N,) int64; None if
            this task generates no images.
        """
        return None

    def enable_flip_tta(self) -> None:
        """Average the predictions of each image and its mirror image from now on.

        Raises:
            ArgumentError: if predictions of this task cannot be averaged.
        """
        raise ArgumentError("tta", "flip", "null: this task cannot average predictions")

    def enable_tiling(self, overlap: float) -> None:
        """Predict images at their original size, tile by tile, from now on.

        Args:
            overlap: overlap of adjacent tiles, as a fraction of their side.

        Raises:
            ArgumentError: if the task does not predict pixels.
        """
        raise ArgumentError("tiles", True, "false: this task does not predict pixels")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the state of the training metrics of the current epoch, of all ranks."""
        states = get_metric_states(self.split_metrics["on_train"])
        checkpoint["metric_states"] = [states]
        if self.trainer.world_size > 1:
            checkpoint["metric_states"] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(checkpoint["metric_states"], states)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state of the training metrics."""
        states = checkpoint["metric_states"][self.global_rank]
        set_metric_states(self.split_metrics["on_train"], states)
