"""The order of samples: a pure function of seed, epoch and position."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil

import torch
from torch import Generator, Tensor
from torch.utils.data import RandomSampler, Sampler, WeightedRandomSampler

from vision_lab.core.arguments import Count
from vision_lab.core.errors import ConfigurationError, DataError
from vision_lab.core.protocols import Dataset
from vision_lab.data.fingerprint import get_labels, get_shards, get_window
from vision_lab.data.splits import evenly_spaced
from vision_lab.data.statistics import inverse_frequencies
from vision_lab.training.seeding import derive_seed

SamplerFactory = Callable[..., Iterable[int]]
"""Called with a dataset and ``generator=``, creates a sampler, such as those of torch.

The sampler yields the indices of an epoch, as many in each one. The generator is seeded before.
"""


def shuffled_sampler(
    dataset: Dataset,
    *,
    generator: Generator,
    num_samples: Count | None = None,
    replacement: bool = False,
) -> Sampler[int]:
    """Create a sampler that draws each sample once; of shards, from a window that moves over them.

    Args:
        dataset: the dataset.
        generator: generator of the random numbers.
        num_samples: number of samples in an epoch; None for all.
        replacement: whether a sample may be drawn more than once.

    Returns:
        ``RandomSampler``, or ``ShardSampler`` for a dataset with shards.

    Raises:
        ConfigurationError: if not all samples of shards are to be drawn once.
    """
    shard_of = get_shards(dataset)
    if shard_of is None:
        return RandomSampler(
            dataset, replacement=replacement, num_samples=num_samples, generator=generator
        )
    if num_samples is not None or replacement:
        raise ConfigurationError(
            "each sample of shards is drawn once an epoch: type sampler.num_samples=null "
            "sampler.replacement=false"
        )
    return ShardSampler(shard_of, window=get_window(dataset), generator=generator)


class ShardSampler(Sampler[int]):
    """Draws each sample once, from a window of shards that moves over all of them.

    The shards are in random order, over which the window moves. Samples of a shard are spread
    evenly over the steps in which the window contains it, so that at any time samples of at most
    ``window`` shards are mixed. If the window holds all shards, the order is that of
    ``RandomSampler``.

    Args:
        shard_of: (n,) index of the shard of each sample, from 0.
        window: number of shards.
        generator: generator of the random numbers.
    """

    def __init__(self, shard_of: Tensor, *, window: int, generator: Generator) -> None:
        self.shard_of = shard_of
        self.window = window
        self.generator = generator

    def __len__(self) -> int:
        return len(self.shard_of)

    def __iter__(self) -> Iterator[int]:
        size, num_shards = len(self.shard_of), int(self.shard_of.max()) + 1
        if self.window >= num_shards:
            yield from torch.randperm(size, generator=self.generator).tolist()
            return
        rank = torch.randperm(num_shards, generator=self.generator)[self.shard_of].double()
        enters = (rank - self.window + 1).clamp(min=0)
        leaves = rank + 1
        random = torch.rand(size, generator=self.generator, dtype=torch.float64)
        time = enters + random * (leaves - enters)
        yield from time.argsort(stable=True).tolist()


def balanced_sampler(
    dataset: Dataset,
    *,
    generator: Generator,
) -> WeightedRandomSampler:
    """Draw as many samples as there are, with replacement, each class with equal probability.

    Args:
        dataset: a dataset with labels.
        generator: generator of the random numbers.

    Raises:
        DataError: if a label is not an integer.
    """
    labels = get_labels(dataset)
    weights = inverse_frequencies(labels, max(labels) + 1)[labels]
    return WeightedRandomSampler(weights.tolist(), len(dataset), generator=generator)


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Yields batches of (epoch, index) pairs, from which workers seed each sample.

    In training, position k of an epoch is the same sample for any number of processes: each step
    takes the next ``batch_size * world_size`` positions of the sampler, and each rank its own slice
    of them. An incomplete last batch is left out (the next epoch has another order), unless it is
    the only one.

    In evaluation, rank r yields the samples r, r + world_size, ...: each sample exactly once. All
    ranks yield the same number of batches, because they synchronize after each; sizes may differ by
    one.

    Args:
        size: number of samples in the dataset.
        batch_size: maximum number of samples in a batch.
        sampler: yields the indices of an epoch of training, in order; None in evaluation. Its
            ``set_epoch`` is called if it has one.
        generator: the generator of the sampler, which is seeded before each epoch.
        seed: seed of the generator, with the epoch.
        rank: rank of this process.
        world_size: number of processes.
        same_every_epoch: whether to use the order of the first epoch in every epoch.
        resume_position: (epoch, batches of it) already completed, which are not yielded again.
        limit: number of batches that an evaluation will read, 0 for all. Their samples are evenly
            spaced, because a dataset may be sorted by class.
        prefetch: called with the batches that are still to come, yields each of them when it is
            needed, so that it may load what comes next.

    Raises:
        DataError: if there are fewer samples than processes.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        sampler: Iterable[int] | None = None,
        generator: Generator | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        same_every_epoch: bool = False,
        resume_position: tuple[int, int] = (0, 0),
        limit: int = 0,
        prefetch: Callable[[list[list[int]]], Iterable[list[int]]] = iter,
    ) -> None:
        _check_count(size, "images", world_size)
        self.size = size
        self.batch_size = batch_size
        self.epoch_sampler = sampler
        self.generator = generator
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.same_every_epoch = same_every_epoch
        self.resume_position = resume_position
        self.limit = limit
        self.prefetch = prefetch
        self.epoch = resume_position[0]
        self._drawn: tuple[int, torch.Tensor] | None = None
        """An epoch, and its order."""

    @property
    def sampler(self) -> EpochBatchSampler:
        """This object: Lightning calls ``batch_sampler.sampler.set_epoch``."""
        return self

    @property
    def step_size(self) -> int:
        """Number of samples in a step of all processes."""
        return self.batch_size * self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; called by Lightning before each one."""
        self.epoch = epoch if self.epoch_sampler is not None else 0

    def batches(self) -> list[list[int]]:
        """Return the indices of this rank's batches in the current epoch, in order."""
        if self.epoch_sampler is not None:
            return self._training_batches(self.epoch_sampler)
        return self._evaluation_batches()

    def _training_batches(self, sampler: Iterable[int]) -> list[list[int]]:
        order = self._order(sampler)
        steps = len(order) // self.step_size
        if steps == 0:
            return [order[self.rank :: self.world_size].tolist()]
        by_rank = order[: steps * self.step_size].view(steps, self.world_size, -1)
        batches: list[list[int]] = by_rank[:, self.rank].tolist()
        return batches

    def _order(self, sampler: Iterable[int]) -> torch.Tensor:
        """Return the indices of the epoch, those of all ranks."""
        epoch = 0 if self.same_every_epoch else self.epoch
        if self._drawn is None or self._drawn[0] != epoch:
            if self.generator is not None:
                self.generator.manual_seed(derive_seed(self.seed, epoch))
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)
            order = torch.tensor(list(sampler))
            _check_count(len(order), "samples of the sampler", self.world_size)
            outside = order[(order < 0) | (order >= self.size)]
            if len(outside):
                raise DataError(
                    f"the sampler yields the index {outside[0]}, but there are {self.size} images"
                )
            self._drawn = (epoch, order)
        return self._drawn[1]

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
        for batch in self.prefetch(self.batches()[first:]):
            yield [(self.epoch, index) for index in batch]

    def __len__(self) -> int:
        if self.epoch_sampler is not None:
            return max(1, len(self._order(self.epoch_sampler)) // self.step_size)
        return ceil(self.size / self.step_size)


def _check_count(
    count: int,
    noun: str,
    world_size: int,
) -> None:
    if count < world_size:
        raise DataError(
            f"{count} {noun} cannot be distributed over {world_size} processes: use at most "
            f"{count} devices"
        )
