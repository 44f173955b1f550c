"""The study of a search: its trials, in one append-only file that several processes share.

The values of a trial are a function of the seed, its number and the trials before it. A trial is
written in one line with all of its values. So a search that is killed at any moment continues with
the same trials, if it has one process.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GridSampler, QMCSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from vision_lab.config.instantiation import instantiate, locate, name_errors
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import format_path
from vision_lab.core.signatures import get_parameters
from vision_lab.run_folders.resume import is_ignored
from vision_lab.search.claims import acquire_claim
from vision_lab.search.settings import SearchSettings
from vision_lab.search.space import SearchSpace

STUDY_FILENAME = "study.log"
"""The file of the study, which optuna-dashboard opens."""

STUDY_NAME = "search"

LOCK_FILENAME = ".study.lock"

IDENTITY_KEY = "identity"
"""Attribute of the study: what must be equal when the command is repeated."""

ERROR_KEY = "error"
"""Attribute of a failed trial."""

REPEATS_KEY = "repeats"
"""Attribute of a trial that repeats a failed one: its number."""

STUDY_ATTRIBUTES_KEY = "study_attributes"
"""Attribute of a trial: what its sampler has stored in the study, in the same line as the trial."""

OPTUNA_DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class _StudyLock(BaseJournalFileLock):
    """A lock that the operating system releases when its process dies."""

    def __init__(self, path: Path) -> None:
        self.lock = FileLock(path)

    def acquire(self) -> bool:
        self.lock.acquire()
        return True

    def release(self) -> None:
        self.lock.release()


class SearchStudy:
    """The trials of a search in a folder.

    Args:
        folder: the folder of the sweep.
        space: what is varied.
        settings: how it is searched.

    Raises:
        ConfigurationError: if the folder contains the study of another space or other settings.
    """

    def __init__(
        self,
        folder: Path,
        space: SearchSpace,
        settings: SearchSettings,
    ) -> None:
        self.folder = folder
        self.space = space
        self.settings = settings
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(folder / LOCK_FILENAME)
        with self.lock:
            self.storage = open_storage(folder)
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=STUDY_NAME,
                directions=[OPTUNA_DIRECTIONS[name] for name in settings.directions],
                load_if_exists=True,
            )
            self._check_identity()

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, in the order in which they were started."""
        return self.study.get_trials(deepcopy=False)

    @property
    def total(self) -> int:
        """Number of trials of the complete search."""
        if issubclass(self._sampler_class, GridSampler):
            sizes = [len(values) for values in self._grid().values()]
            return min(self.settings.trials, prod(sizes))
        return self.settings.trials

    @contextmanager
    def claim_trial(self) -> Iterator[FrozenTrial | None]:
        """Reserve the next trial for this process within this context.

        Yields:
            A trial whose process has died, a failed one to be repeated, or a new one; None if there
            is nothing left to start.
        """
        with self.lock:
            for trial in self._candidates():
                claim = acquire_claim(self.folder, str(trial.number))
                if claim is not None:
                    break
            else:
                claim = None
        if claim is None:
            yield None
            return
        try:
            yield trial
        finally:
            claim.release()

    def finish(
        self,
        trial: FrozenTrial,
        values: Sequence[float],
    ) -> None:
        """Record the metrics of a trial."""
        self.study.tell(trial.number, list(values), skip_if_finished=True)

    def prune(self, trial: FrozenTrial) -> None:
        """Record that a trial was ended early; its value is the last one it has reported."""
        self.study.tell(trial.number, state=TrialState.PRUNED, skip_if_finished=True)

    def fail(
        self,
        trial: FrozenTrial,
        error: str,
    ) -> None:
        """Record the error of a trial."""
        self.storage.set_trial_user_attr(trial._trial_id, ERROR_KEY, error)
        self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _candidates(self) -> Iterator[FrozenTrial]:
        trials = self.trials
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                yield trial
        for trial in trials:
            if self._is_to_repeat(trial, trials):
                yield self._add(trial.params, {REPEATS_KEY: trial.number}, trial.system_attrs)
        if sum(REPEATS_KEY not in trial.user_attrs for trial in trials) < self.total:
            yield self._suggest(trials)

    def _is_to_repeat(
        self,
        trial: FrozenTrial,
        trials: Sequence[FrozenTrial],
    ) -> bool:
        """Return whether a trial and all of its repetitions have failed, and more are allowed."""
        if trial.state != TrialState.FAIL or REPEATS_KEY in trial.user_attrs:
            return False
        repetitions = []
        for other in trials:
            if other.user_attrs.get(REPEATS_KEY) == trial.number:
                repetitions.append(other)
        have_failed = all(other.state == TrialState.FAIL for other in repetitions)
        return have_failed and len(repetitions) < self.settings.retry

    def _suggest(self, trials: Sequence[FrozenTrial]) -> FrozenTrial:
        """Create a trial with new values.

        They are asked from a copy of the study in memory, because Optuna writes a trial and each of
        its values separately.
        """
        copy = optuna.create_study(
            sampler=self._make_sampler(len(trials)), directions=self.study.directions
        )
        copy.add_trials(trials)
        if trials:
            attributes = trials[-1].system_attrs.get(STUDY_ATTRIBUTES_KEY, {})
            for key, value in attributes.items():
                copy._storage.set_study_system_attr(copy._study_id, key, value)
        asked = copy.ask(self.space.distributions)
        frozen = copy._storage.get_trial(asked._trial_id)
        stored = copy._storage.get_study_system_attrs(copy._study_id)
        system_attributes = frozen.system_attrs | {STUDY_ATTRIBUTES_KEY: stored}
        return self._add(asked.params, {}, system_attributes)

    def _add(
        self,
        params: Mapping[str, Any],
        user_attributes: Mapping[str, Any],
        system_attributes: Mapping[str, Any],
    ) -> FrozenTrial:
        template = create_trial(
            state=TrialState.RUNNING,
            params=dict(params),
            distributions=dict(self.space.distributions),
            user_attrs=dict(user_attributes),
            system_attrs=dict(system_attributes),
        )
        trial_id = self.storage.create_new_trial(self.study._study_id, template)
        return self.storage.get_trial(trial_id)

    @property
    def _sampler_class(self) -> type[BaseSampler]:
        target = self.settings.sampler.get("_target_")
        try:
            found = locate(str(target))
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigurationError(
                f"search.sampler._target_={target} cannot be found: {error}"
            ) from error
        if not isinstance(found, type) or not issubclass(found, BaseSampler):
            raise ConfigurationError(
                f"search.sampler._target_={target}: type a sampler of Optuna, such as "
                "optuna.samplers.TPESampler"
            )
        return found

    def _make_sampler(self, number: int) -> BaseSampler:
        """Build the sampler, with a seed of its own for each trial."""
        sampler_class = self._sampler_class
        accepted = get_parameters(sampler_class)[0]
        seed = self.settings.seed
        if not issubclass(sampler_class, GridSampler | QMCSampler):  # whose order is that of a seed
            seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        arguments: dict[str, Any] = {}
        if "seed" in accepted:
            arguments["seed"] = seed
        if "search_space" in accepted:
            arguments["search_space"] = self._grid()
        make = instantiate({**self.settings.sampler, "_partial_": True}, "search.sampler")
        with name_errors("search.sampler", self.settings.sampler):
            sampler: BaseSampler = make(**arguments)
        return sampler

    def _grid(self) -> dict[str, list[Any]]:
        """Return the values of each key, if all of them are lists."""
        grid: dict[str, list[Any]] = {}
        for key, distribution in self.space.distributions.items():
            values = _list_values(distribution)
            if values is None:
                raise ConfigurationError(
                    f"search=grid tries all values, but {key}={self.space.texts[key]} is an "
                    f"interval: type {key}=<values separated by commas>, or search=tpe"
                )
            grid[key] = values
        return grid

    def _check_identity(self) -> None:
        wanted = {
            **self.space.texts,
            **_as_keys(self.space.fixed),
            **self.settings.identity,
        }
        stored = self.study.user_attrs.get(IDENTITY_KEY)
        if stored is None:
            self.study.set_user_attr(IDENTITY_KEY, wanted)
            return
        lines = []
        for key in dict.fromkeys([*stored, *wanted]):
            before, now = stored.get(key, "nothing"), wanted.get(key, "nothing")
            if before != now:
                lines.append(f"  {key}: {before} in the search, {now} now")
        if lines:
            raise ConfigurationError(
                f"{format_path(self.folder)} holds another search:\n"
                + "\n".join(lines)
                + "\nType another name=, or the values of the search."
            )


def open_storage(folder: Path) -> JournalStorage:
    """Open the file of a study; a last line that a killed process has left incomplete is removed.

    Args:
        folder: the folder of the sweep.

    Raises:
        ConfigurationError: if the file is damaged.
    """
    file = folder / STUDY_FILENAME
    lock = _StudyLock(folder / f"{LOCK_FILENAME}.file")
    with lock.lock:
        _remove_torn_line(file)
    try:
        return JournalStorage(JournalFileBackend(str(file), lock_obj=lock))
    except (ValueError, KeyError) as error:
        raise ConfigurationError(
            f"{format_path(file)} is damaged ({error}): type another name=, or remove the file to "
            "start the search over"
        ) from error


def make_pruner(name: str) -> BasePruner:
    """Build a pruner.

    Args:
        name: ``median`` ends trials below the median of others at the same epoch (Golovin 2017);
            ``hyperband`` gives few trials many epochs (Li 2018); ``none`` ends none.
    """
    if name == "median":
        return MedianPruner(n_startup_trials=5)
    if name == "hyperband":
        return HyperbandPruner()
    return NopPruner()


class TrialReporter:
    """Reports the epochs of a trial to its study, from the process that trains it.

    Args:
        folder: the folder of the sweep.
        number: number of the trial.
        pruner: name of the pruner.
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        pruner: str,
    ) -> None:
        self.storage = open_storage(folder)
        self.study = optuna.load_study(
            study_name=STUDY_NAME, storage=self.storage, pruner=make_pruner(pruner)
        )
        self.trial_id = self.storage.get_trial_id_from_study_id_trial_number(
            self.study._study_id, number
        )

    def report(
        self,
        value: float,
        epoch: int,
    ) -> bool:
        """Report the metric of an epoch, once.

        Args:
            value: the metric.
            epoch: the epoch, from 0.

        Returns:
            Whether the trial is unpromising.
        """
        trial = self.storage.get_trial(self.trial_id)
        if epoch not in trial.intermediate_values and not trial.state.is_finished():
            self.storage.set_trial_intermediate_value(self.trial_id, epoch, value)
        return bool(self.study.pruner.prune(self.study, self.storage.get_trial(self.trial_id)))


def _remove_torn_line(file: Path) -> None:
    """Cut a file after its last complete line."""
    if not file.is_file():
        return
    content = file.read_bytes()
    if content and not content.endswith(b"\n"):
        with file.open("r+b") as stream:
            stream.truncate(content.rfind(b"\n") + 1)


def _list_values(distribution: BaseDistribution) -> list[Any] | None:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution) and not distribution.log:
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    return None


def _as_keys(overrides: Sequence[str]) -> dict[str, str]:
    """Return the value of each key on which the trials depend."""
    found = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if not is_ignored(key) and not key.startswith("hydra"):
            found[key] = value
    return found
