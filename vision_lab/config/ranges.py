"""Valid ranges of the arguments of library classes, where their annotations give the type only."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

from vision_lab.core.arguments import Count, Fraction, Hint, NonNegative, OneOf, Range

Momentum = Annotated[float, Range(ge=0, lt=1)]

Batches = Annotated[
    Count | Annotated[float, Range(gt=0, le=1)],
    Hint("a number of batches, 1 or more, or a fraction of them such as 0.1"),
]


def _strategies() -> list[str]:
    from pytorch_lightning.strategies import StrategyRegistry

    return ["auto", *StrategyRegistry.available_strategies()]


def _accelerators() -> list[str]:
    from pytorch_lightning.accelerators import AcceleratorRegistry

    return ["auto", "gpu", *AcceleratorRegistry.available_accelerators()]


MinOrMax = Literal["min", "max"]


class Built:
    """Placeholder in an annotation for an object that is instantiated from its ``_target_``."""


EXTERNAL_ARGUMENTS: dict[str, dict[str, Any]] = {
    "torch.optim.optimizer.Optimizer": {
        "lr": NonNegative,
        "weight_decay": NonNegative,
        "momentum": Momentum,
        "betas": Annotated[
            tuple[Momentum, Momentum], Hint("two numbers of 0 or more, below 1: [0.9,0.999]")
        ],
        "eps": NonNegative,
    },
    "torch.optim.lr_scheduler.ReduceLROnPlateau": {
        "factor": Annotated[float, Range(gt=0, lt=1)],
        "patience": Annotated[int, Range(ge=0)],
        "threshold": NonNegative,
        "threshold_mode": Literal["rel", "abs"],
    },
    "torch.nn.modules.module.Module": {"p": Fraction, "dropout": Fraction},
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping": {
        "patience": Count,
        "mode": MinOrMax,
    },
    "pytorch_lightning.callbacks.weight_averaging.EMAWeightAveraging": {"decay": Fraction},
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": {"mode": MinOrMax},
    "pytorch_lightning.trainer.trainer.Trainer": {
        "accelerator": Annotated[str, OneOf(_accelerators)] | Built,
        "strategy": Annotated[str, OneOf(_strategies)] | Built,
        "profiler": Literal["simple", "advanced"] | Built | None,
        "plugins": Annotated[
            dict[str, Built | None] | None, Hint("objects by name, each with its _target_")
        ],
        "devices": Annotated[
            Literal["auto", -1] | Count | list[Annotated[int, Range(ge=0)]],
            Hint("a whole number of 1 or more, -1 for all, auto, or a list of GPUs, [0,1]"),
        ],
        "num_nodes": Count,
        # With any other precision, Lightning converts all tensors of a batch, and images are uint8.
        "precision": Literal["32-true", "16-mixed", "bf16-mixed"],
        "max_epochs": Count | Literal[-1] | None,
        "max_steps": Count | Literal[-1],
        "limit_train_batches": Batches,
        "limit_val_batches": Batches,
        "limit_test_batches": Batches,
        "overfit_batches": NonNegative,
        "check_val_every_n_epoch": Count | None,
        "num_sanity_val_steps": Annotated[int, Range(ge=-1)],
        "log_every_n_steps": Annotated[int, Range(ge=0)],
        "accumulate_grad_batches": Count,
        "gradient_clip_val": NonNegative | None,
        "gradient_clip_algorithm": Literal["norm", "value"] | None,
    },
}
"""Annotations of arguments by class; they apply to subclasses too."""

SEED_LIMIT = 2**32 - 1

PLAIN_KEYS: dict[str, Any] = {
    "name": Annotated[str | int | float | None, Hint("a name, or null")],
    "seed": Annotated[int, Range(ge=0, le=SEED_LIMIT)],
    "seeds": Count | None,
    "run": Annotated[str | None, Hint("a run folder, or null")],
    "runs": Annotated[str | list[str] | None, Hint("a folder of runs, or a list of folders")],
    "resume": Annotated[str | None, Hint("a run folder, or null")],
    "force": bool,
    "extend": bool,
    "remember": bool,
    "trust": Annotated[list[str], Hint("a list of packages, trust=[my_package]")],
    "source": Annotated[str | None, Hint("a file, a folder or a glob, or null")],
}
"""Annotations of the keys that belong to no group."""


def get_annotation(target: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return the annotation of a parameter, from ``EXTERNAL_ARGUMENTS`` if it is there.

    Args:
        target: the class or function that has the parameter.
        parameter: the parameter.
    """
    for base in inspect.getmro(target) if inspect.isclass(target) else ():
        arguments = EXTERNAL_ARGUMENTS.get(f"{base.__module__}.{base.__qualname__}", {})
        if parameter.name in arguments:
            return arguments[parameter.name]
    return parameter.annotation
