"""Jobs of a sweep, and the launcher that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.plugins.launcher import Launcher

from vision_lab.config.overrides import quote_value
from vision_lab.core import console
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.text import first_line
from vision_lab.run_folders.folder import Run

LOCAL_LAUNCHER = "hydra._internal.core_plugins.basic_launcher"
"""Module of the launcher that runs jobs one after another in this process."""


@dataclass(frozen=True)
class Job:
    """A run of a sweep.

    Attributes:
        number: its number in the sweep.
        run: its folder.
        overrides: its overrides, as they are typed.
    """

    number: int
    run: Run
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class JobRunner:
    """Runs jobs by Hydra's launcher, in folders with given names.

    Attributes:
        folder: the folder of the sweep.
        launcher: Hydra's launcher.
    """

    folder: Path
    launcher: Launcher

    @property
    def is_local(self) -> bool:
        """Whether jobs run in this process, one at a time."""
        return type(self.launcher).__module__ == LOCAL_LAUNCHER

    def make_job(
        self,
        number: int,
        name: str,
        overrides: Sequence[str],
    ) -> Job:
        """Return a job in a subfolder.

        Args:
            number: its number in the sweep.
            name: name of the subfolder.
            overrides: its overrides.
        """
        return Job(number, Run(self.folder / name), tuple(overrides))

    def run(self, jobs: Sequence[Job]) -> None:
        """Run jobs until all have ended; their results and errors are in their folders.

        Args:
            jobs: the jobs, with consecutive numbers if there are several.
        """
        words = []
        for job in jobs:
            words.append([*job.overrides, *self._locate(job)])
        try:
            self.launcher.launch(words, initial_job_idx=jobs[0].number)
        except Exception as error:
            if self.is_local:
                raise
            self._handle_lost_jobs(jobs, error)

    def _locate(self, job: Job) -> list[str]:
        """Return the overrides that give a job its folder."""
        overrides = [f"hydra.sweep.subdir={job.run.folder.name}"]
        if not self.is_local:  # its process may have another working directory and another clock
            folder = quote_value(str(self.folder.absolute()))
            overrides.append(f"hydra.sweep.dir={folder}")
        return overrides

    def _handle_lost_jobs(
        self,
        jobs: Sequence[Job],
        error: Exception,
    ) -> None:
        """Report jobs that were lost elsewhere, such as one that a cluster has ended.

        The states of the runs say which of them have results.

        Raises:
            ConfigurationError: if no job has started.
        """
        reason = first_line(error) or type(error).__name__
        if all(job.run.state is None for job in jobs):
            name = type(self.launcher).__name__
            raise ConfigurationError(
                f"{name} has started no job: {reason}\nCorrect hydra.launcher, or type "
                "hydra/launcher=basic to run the jobs in this process"
            ) from error
        console.print_warning(f"the launcher reports: {reason}")
