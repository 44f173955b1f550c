"""Hydra's entry to ``vision_lab.search``: it accepts sweepers of ``hydra_plugins`` only.

Imported whenever Hydra starts, so nothing slow is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class VisionLabSweeper(Sweeper):
    """Runs all combinations of the given values, or a search among them.

    Args:
        params: values by key, such as ``{seed: "0,1"}``, of an experiment; the command line
            replaces those of the same key.
    """

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        self.params = dict(params or {})
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        """Create the launcher, which runs jobs in this process or elsewhere."""
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the jobs of a command with ``-m``."""
        from vision_lab.search.sweep import run_sweep

        assert self.config is not None
        assert self.launcher is not None
        typed = {argument.partition("=")[0] for argument in arguments}
        values = [f"{key}={value}" for key, value in self.params.items() if key not in typed]
        run_sweep(
            self.config,
            self.launcher,
            [*values, *arguments],
            validate=self.validate_batch_is_legal,
        )
