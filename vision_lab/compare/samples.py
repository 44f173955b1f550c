"""Samples on which runs fail: possible label errors, and those on which groups differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from vision_lab.compare.comparison import Comparison
from vision_lab.compare.groups import Group
from vision_lab.compare.runs import FinishedRun
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.sample_files import LOSSES_FILENAME, NUM_THUMBNAILS
from vision_lab.run_folders.folder import Run

MAX_ROWS = 300
"""Number of samples that are read of each run."""

MAX_LABEL_ERRORS = 40
MAX_DISAGREEMENTS = 10
"""Maximum number of samples of each group."""

MAX_GROUPS = 4
"""Number of groups that are compared with the reference."""


@dataclass
class SampleVotes:
    """What several runs have predicted for a sample.

    Attributes:
        split: its split in the first of these runs.
        sample: its path, or its original split and index.
        target: its label.
        predicted: the prediction of each run in which its loss is among the highest.
        losses: its loss in each of them.
        images: these runs, each with the rank of the sample in it.
    """

    split: str
    sample: str
    target: str
    predicted: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    images: list[tuple[Run, int]] = field(default_factory=list)

    def loss(self, num_runs: int) -> float:
        """Return the mean loss over a number of runs; those that do not list the sample have 0."""
        return sum(self.losses) / num_runs

    def is_wrong(self, num_runs: int) -> bool:
        """Return whether more than half of a number of runs predict another class."""
        label, count = self.majority
        return label != self.target and count > num_runs / 2

    @property
    def is_drawn(self) -> bool:
        """Whether the image is among those that a run has drawn."""
        return any(rank < NUM_THUMBNAILS for _, rank in self.images)

    def to_row(self, num_runs: int) -> dict[str, str | float]:
        """Return a row of a table.

        Args:
            num_runs: number of all runs.
        """
        predicted, count = self.majority
        return {
            "sample": self.sample,
            "split": self.split,
            "label": self.target,
            "predicted": predicted,
            "runs": f"{count} of {num_runs}",
            "loss": round(self.loss(num_runs), 4),
        }

    @property
    def majority(self) -> tuple[str, int]:
        """The most frequent prediction, and the number of runs that have it."""
        return Counter(self.predicted).most_common(1)[0]


def find_label_errors(comparison: Comparison) -> tuple[list[SampleVotes], int]:
    """Find samples that most runs predict as another class than their label, with a high loss.

    Args:
        comparison: the comparison.

    Returns:
        The samples: those on whose class the most runs agree first, and of these the ones whose
        loss is high in all of them. And the number of runs that have listed their losses, of which
        at least two are needed.
    """
    runs = [run for item in comparison.groups for run in item.group.runs]
    votes, num_runs = _read_votes(runs)
    if num_runs < 2:
        return [], num_runs
    found = []
    for vote in votes:
        if vote.is_wrong(num_runs):
            found.append(vote)
    found.sort(key=lambda vote: (-vote.majority[1], -min(vote.losses)))
    return found[:MAX_LABEL_ERRORS], num_runs


def find_disagreements(comparison: Comparison) -> dict[str, tuple[list[SampleVotes], int]]:
    """Find test images on which groups are wrong and the reference is better.

    Args:
        comparison: the comparison.

    Returns:
        For each of the best groups but the reference, the samples with the largest difference of
        the mean loss, and the number of runs that have tested each of them.
    """
    reference, num_reference_runs = _read_tested(comparison.reference)
    if not num_reference_runs:
        return {}
    known = {(vote.sample, vote.target): vote.loss(num_reference_runs) for vote in reference}
    found: dict[str, tuple[list[SampleVotes], int]] = {}
    others = [item.group for item in comparison.groups if item.difference is not None]
    for group in others[:MAX_GROUPS]:
        votes, num_runs = _read_tested(group)
        differences = []
        for vote in votes:
            difference = vote.loss(num_runs) - known.get((vote.sample, vote.target), 0.0)
            if difference > 0 and vote.is_wrong(num_runs) and vote.is_drawn:
                differences.append((difference, vote))
        differences.sort(key=lambda pair: -pair[0])
        if differences:
            found[group.name] = ([vote for _, vote in differences[:MAX_DISAGREEMENTS]], num_runs)
    return found


def _read_tested(group: Group) -> tuple[list[SampleVotes], int]:
    """Read the votes for test images, and the number of runs that have tested each of them."""
    votes, num_runs = _read_votes(group.runs, splits=("test",))
    return votes, -(-num_runs // (group.num_folds or 1))


def _read_votes(
    runs: Sequence[FinishedRun], splits: Sequence[str] = ()
) -> tuple[list[SampleVotes], int]:
    """Read the samples with the highest losses, and the number of runs that list them.

    Args:
        runs: the runs.
        splits: splits whose samples are read; empty for all.
    """
    votes: dict[tuple[str, str], SampleVotes] = {}
    num_runs = 0
    for finished in runs:
        seen = set()
        # A damaged file: the rows before the damage.
        with suppress(ConfigurationError, OSError, KeyError, TypeError, ValueError):
            rows = finished.run.read_rows(LOSSES_FILENAME, max_rows=MAX_ROWS)
            num_runs += bool(rows)
            for rank, row in enumerate(rows):
                key, loss = (row["sample"], row["target"]), float(row["loss"])
                is_read = not splits or row["split"] in splits
                if not is_read or key in seen or not math.isfinite(loss):
                    continue
                seen.add(key)
                vote = votes.setdefault(key, SampleVotes(row["split"], *key))
                vote.losses.append(loss)
                vote.predicted.append(row["predicted"])
                vote.images.append((finished.run, rank))
    return list(votes.values()), num_runs
