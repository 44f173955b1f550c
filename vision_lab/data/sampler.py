"""The order of samples: a pure function of seed, epoch and position."""

from collections.abc import Iterator, Sequence
from math import ceil

import torch
from torch.utils.data import Sampler

from vision_lab.core.errors import DataError
from vision_lab.data.splits import evenly_spaced
from vision_lab.training.seeding import derive_seed


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Yields batches of (epoch, index) pairs, from which workers seed each sample.

    In training (``shuffle=True``), position k of an epoch is the same sample for any number of
    processes: each step takes the next ``batch_size * world_size`` positions, and each rank its own
    slice of them. An incomplete last batch is left out (the next epoch has another permutation),
    unless it is the only one.

    In evaluation, rank r yields the samples r, r + world_size, ...: each sample exactly once. All
    ranks yield the same number of batches, because they synchronize after each; sizes may differ by
    one.

    Args:
        size: number of samples in the dataset.
        batch_size: maximum number of samples in a batch.
        seed: seed of the permutations.
        shuffle: whether to permute the samples, and to leave out an incomplete batch.
        rank: rank of this process.
        world_size: number of processes.
        same_every_epoch: whether to use the permutation of the first epoch in every epoch.
        resume_position: (epoch, batches of it) already completed, which are not yielded again.
        limit: number of batches that an evaluation will read, 0 for all. Their samples are evenly
            spaced, because a dataset may be sorted by class.

    Raises:
        ConfigurationError: if there are fewer samples than processes.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        same_every_epoch: bool = False,
        resume_position: tuple[int, int] = (0, 0),
        limit: int = 0,
    ) -> None:
        if size < world_size:
            raise DataError(
                f"{size} images cannot be distributed over {world_size} processes: use at most "
                f"{size} devices"
            )
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.same_every_epoch = same_every_epoch
        self.resume_position = resume_position
        self.limit = limit
        self.epoch = resume_position[0]

    @property
    def sampler(self) -> "EpochBatchSampler":
        """This object: Lightning calls ``batch_sampler.sampler.set_epoch``."""
        return self

    @property
    def step_size(self) -> int:
        """Number of samples in a step of all processes."""
        return self.batch_size * self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; called by Lightning before each one."""
        self.epoch = epoch if self.shuffle else 0

    def batches(self) -> list[list[int]]:
        """Return the indices of this rank's batches in the current epoch, in order."""
        if self.shuffle:
            return self._training_batches()
        return self._evaluation_batches()

    def _training_batches(self) -> list[list[int]]:
        seed = derive_seed(self.seed, 0 if self.same_every_epoch else self.epoch)
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(seed))
        steps = self.size // self.step_size
        if steps == 0:
            return [order[self.rank :: self.world_size].tolist()]
        by_rank = order[: steps * self.step_size].view(steps, self.world_size, -1)
        batches: list[list[int]] = by_rank[:, self.rank].tolist()
        return batches

    def _evaluation_batches(self) -> list[list[int]]:
        limit = self.limit * self.step_size
        if not 0 < limit < self.size:
            return self._divide(range(self.size))
        first = evenly_spaced(self.size, limit)
        rest = sorted(set(range(self.size)) - set(first))
        return [*self._divide(first), *self._divide(rest)]

    def _divide(self, indices: Sequence[int]) -> list[list[int]]:
        """Return this rank's batches of some samples, as many as other ranks have."""
        own = torch.tensor(indices[self.rank :: self.world_size])
        batches = own.tensor_split(ceil(len(indices) / self.step_size))
        return [batch.tolist() for batch in batches]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, completed = self.resume_position
        first = completed if self.epoch == epoch else 0
        for batch in self.batches()[first:]:
            yield [(self.epoch, index) for index in batch]

    def __len__(self) -> int:
        if self.shuffle:
            return max(1, self.size // self.step_size)
        return ceil(self.size / self.step_size)
