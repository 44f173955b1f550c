"""Which sample comes when: a pure function of (seed, epoch, position), for any number of workers and processes."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from vision_lab.core.errors import ConfigurationError
from vision_lab.data.splits import evenly_spaced
from vision_lab.training.seeding import derive_seed


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Yields batches of (epoch, index) pairs, so that a worker can seed each sample by them.

    For training, position k of an epoch is the same sample however many processes share the work: together they take
    ``batch_size * world`` positions a step, each its own slice. Where the last batch would be incomplete it is left
    out (another permutation comes next epoch), unless it is the only one.

    For evaluation (``shuffle=False``), rank r takes samples r, r + world, ...: each exactly once, none repeated to fill
    up. All ranks have the same number of batches, since they meet in each; their sizes may differ by one.

    Args:
        size: samples in the data set.
        batch_size: samples a batch, at most.
        seed: decides the permutations.
        shuffle: permute, and leave out an incomplete batch.
        rank: of this process.
        world: processes.
        fixed: the first epoch's permutation in every epoch.
        done: (epoch, batches of it) that a run has behind it already, and that are not yielded again.
        limit: batches that an evaluation will read; their samples are evenly spaced over the data set, which may be
            sorted by class. 0: all.

    Raises:
        ConfigurationError: where there are fewer samples than processes.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world: int = 1,
        fixed: bool = False,
        done: tuple[int, int] = (0, 0),
        limit: int = 0,
    ) -> None:
        if size < world:
            raise ConfigurationError(
                f"{world} processes cannot share {size} pictures: type trainer.devices={size}"
            )
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world = world
        self.same_every_epoch = fixed
        self.resume_position = done
        self.limit = limit
        self.epoch = done[0]

    @property
    def sampler(self) -> "EpochBatchSampler":
        """Where Lightning looks for ``set_epoch`` in a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch if self.shuffle else 0

    def batches(self) -> list[list[int]]:
        """This rank's batches of this epoch, in order."""
        together = self.batch_size * self.world
        if not self.shuffle:
            if 0 < self.limit * together < self.size:
                first = evenly_spaced(self.size, self.limit * together)
                rest = sorted(set(range(self.size)) - set(first))
                return [*self._share(first), *self._share(rest)]
            return self._share(range(self.size))
        generator = torch.Generator().manual_seed(
            derive_seed(self.seed, 0 if self.same_every_epoch else self.epoch)
        )
        order = torch.randperm(self.size, generator=generator)
        steps = self.size // together
        if steps == 0:
            return [order[self.rank :: self.world].tolist()]
        kept: list[list[int]] = (
            order[: steps * together].view(steps, self.world, -1)[:, self.rank].tolist()
        )
        return kept

    def _share(self, indices: Sequence[int]) -> list[list[int]]:
        """This rank's batches of some samples, in their order: as many as the others have, but for a sample each."""
        own = torch.tensor(indices[self.rank :: self.world])
        return [
            batch.tolist()
            for batch in own.tensor_split(-(-len(indices) // (self.batch_size * self.world)))
        ]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, batches = self.resume_position
        behind = batches if self.epoch == epoch else 0
        return ([(self.epoch, index) for index in batch] for batch in self.batches()[behind:])

    def __len__(self) -> int:
        together = self.batch_size * self.world
        return max(1, self.size // together) if self.shuffle else -(-self.size // together)
