"""Which sample comes when: a pure function of (seed, epoch, position), for any number of workers and processes."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from vision_lab.randomness import mix


class Order(Sampler[tuple[int, int]]):
    """Yields (epoch, index) pairs, so that a worker can seed each sample by them.

    For training, position k of an epoch is the same sample however many processes share the work: together they take
    ``batch_size * world`` positions a step, each its own slice. Where the last batch would be incomplete it is left
    out (another permutation comes next epoch), unless it is the only one.

    For evaluation (``shuffle=False``), rank r takes samples r, r + world, ...: each exactly once, none repeated to
    fill up, so the ranks' numbers of samples may differ by one.
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
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world = world
        self.fixed = fixed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = 0 if self.fixed or not self.shuffle else epoch

    def indices(self) -> list[int]:
        """This rank's samples of this epoch, in order."""
        if not self.shuffle:
            return list(range(self.rank, self.size, self.world))
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch))
        order = torch.randperm(self.size, generator=generator)
        together = self.batch_size * self.world
        steps = self.size // together
        if steps == 0:
            return order[self.rank :: self.world].tolist()
        return order[: steps * together].view(steps, self.world, self.batch_size)[:, self.rank].flatten().tolist()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in self.indices())

    def __len__(self) -> int:
        if not self.shuffle:
            return len(range(self.rank, self.size, self.world))
        together = self.batch_size * self.world
        return self.size // together * self.batch_size or len(range(self.rank, self.size, self.world))
