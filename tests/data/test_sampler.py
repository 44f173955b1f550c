"""The order is a function of (seed, epoch, position), for any number of processes."""

from collections import Counter

import pytest
import torch
from torch.utils.data import RandomSampler, Subset

from vision_lab.core.errors import DataError
from vision_lab.data.sampler import (
    EpochBatchSampler,
    SamplerFactory,
    ShardSampler,
    balanced_sampler,
    shuffled_sampler,
)
from vision_lab.training.seeding import derive_seed


class Labels:
    """A dataset of labels alone."""

    def __init__(self, targets: list[int]) -> None:
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[None, int]:
        return None, self.targets[index]


def order(
    *,
    size: int = 103,
    sampler: SamplerFactory | None = RandomSampler,
    dataset: object = None,
    **arguments,
) -> EpochBatchSampler:
    generator = torch.Generator()
    return EpochBatchSampler(
        size,
        sampler=sampler and sampler(dataset or range(size), generator=generator),
        generator=generator,
        **({"batch_size": 5, "seed": 7} | arguments),
    )


def test_an_epoch_is_a_permutation_without_the_incomplete_batch():
    batches = order().batches()
    assert len(batches) == len(order()) == 20
    assert {len(batch) for batch in batches} == {5}
    taken = {index for batch in batches for index in batch}
    assert len(taken) == 100
    assert taken <= set(range(103))


def test_the_order_depends_on_seed_and_epoch():
    one = order()
    first = one.batches()
    assert first == order().batches()
    assert first != order(seed=8).batches()
    one.set_epoch(1)
    assert one.batches() != first
    assert next(iter(one))[0] == (1, one.batches()[0][0])
    one.set_epoch(0)
    assert one.batches() == first


def test_without_shuffling_the_order_is_constant():
    """So that augmentation changes in each epoch."""
    one = order(same_every_epoch=True)
    one.set_epoch(3)
    assert one.batches() == order().batches()
    assert next(iter(one))[0][0] == 3


def test_two_ranks_split_the_batches_of_one_process_with_twice_the_batch():
    whole = order(batch_size=10).batches()
    ranks = [order(rank=rank, world_size=2).batches() for rank in (0, 1)]
    assert [one + other for one, other in zip(*ranks, strict=True)] == whole


@pytest.mark.parametrize("size", [4, 9, 103])
def test_evaluation_uses_each_sample_once_in_equally_many_batches_per_rank(size: int):
    for world in (1, 2, 3, 4):
        orders = [
            order(size=size, batch_size=4, sampler=None, rank=r, world_size=world)
            for r in range(world)
        ]
        ranks = [each.batches() for each in orders]
        assert sorted(index for batches in ranks for batch in batches for index in batch) == list(
            range(size)
        )
        assert len({len(batches) for batches in ranks}) == 1
        assert all(1 <= len(batch) <= 4 for batches in ranks for batch in batches)
        assert [len(each) for each in orders] == [len(batches) for batches in ranks]


def test_a_dataset_smaller_than_a_batch_is_one_batch():
    (only,) = order(size=3).batches()
    assert sorted(only) == [0, 1, 2]
    assert len(order(size=3)) == 1


def test_fewer_samples_than_processes():
    with pytest.raises(
        DataError, match="1 images cannot be distributed over 2 processes: use at most 1 devices"
    ):
        order(size=1, world_size=2)


def test_completed_batches_are_not_yielded_again():
    whole = order()
    for epoch in (1, 2, 3):
        whole.set_epoch(epoch)
        rest = order(resume_position=(2, 3))
        assert rest.epoch == 2  # a loader's workers read ahead before the epoch is set
        rest.set_epoch(epoch)
        assert list(rest) == list(whole)[3 if epoch == 2 else 0 :]
        assert len(rest) == len(whole)  # as Lightning counts on


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_limited_evaluation_covers_a_sorted_dataset(world: int):
    """The first batches are evenly spaced; the others follow but are not read."""
    orders = [
        order(size=100, batch_size=4, sampler=None, rank=r, world_size=world, limit=2)
        for r in range(world)
    ]
    ranks = [each.batches() for each in orders]
    seen = sorted(index for batches in ranks for batch in batches[:2] for index in batch)
    assert seen == [place * 100 // (8 * world) for place in range(8 * world)]
    assert sorted(index for batches in ranks for batch in batches for index in batch) == list(
        range(100)
    )
    assert [len(batches) for batches in ranks] == [len(each) for each in orders]
    whole = order(size=100, batch_size=4, sampler=None, limit=25).batches()
    assert whole == order(size=100, batch_size=4, sampler=None).batches()


def test_the_order_is_torchs_permutation():
    """Seeded by (7, 0), as in each epoch of the runs of the experiments."""
    generator = torch.Generator().manual_seed(derive_seed(7, 0))
    expected = torch.randperm(103, generator=generator)[:100].tolist()
    assert [index for batch in order().batches() for index in batch] == expected


def test_a_balanced_sampler_draws_each_class_equally_often():
    labels = [0] * 900 + [1] * 90 + [3] * 10  # none of class 2
    drawn = Counter()
    one = order(size=1000, sampler=balanced_sampler, dataset=Labels(labels))
    for epoch in range(3):
        one.set_epoch(epoch)
        drawn.update(labels[index] for batch in one.batches() for index in batch)
    assert set(drawn) == {0, 1, 3}
    assert sum(drawn.values()) == 3000
    assert all(900 < count < 1100 for count in drawn.values())  # 1000 with a deviation of 26
    again = order(size=1000, sampler=balanced_sampler, dataset=Labels(labels))
    again.set_epoch(2)
    assert again.batches() == one.batches()
    ranks = [
        order(
            size=1000,
            sampler=balanced_sampler,
            dataset=Labels(labels),
            batch_size=4,
            rank=rank,
            world_size=2,
        ).batches()
        for rank in (0, 1)
    ]
    whole = order(size=1000, sampler=balanced_sampler, dataset=Labels(labels), batch_size=8)
    assert [one + other for one, other in zip(*ranks, strict=True)] == whole.batches()


def test_labels_of_a_subset_are_balanced():
    subset = Subset(Labels([0, 1] * 10 + [0] * 80), [*range(0, 100, 4), 1])
    drawn = order(size=26, sampler=balanced_sampler, dataset=subset, batch_size=26).batches()[0]
    assert drawn.count(25) > 5


class Shifted:
    """Yields indices that depend on the epoch, which torch's convention sets."""

    def __init__(self, indices: list[int]) -> None:
        self.indices = indices
        self.epoch = -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        return (index + self.epoch for index in self.indices)


def test_a_sampler_is_given_the_epoch():
    one = order(size=12, sampler=lambda _, **_generator: Shifted([1, 5]), batch_size=2)
    one.set_epoch(4)
    assert one.batches() == [[5, 9]]
    assert len(one) == 1


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 12], "the sampler yields the index 12, but there are 12 images"),
        ([-1], "the sampler yields the index -1, but there are 12 images"),
        ([], "0 samples of the sampler cannot be distributed over 1 processes"),
    ],
)
def test_indices_outside_of_the_data_are_refused(indices: list[int], message: str):
    with pytest.raises(DataError, match=message):
        order(size=12, sampler=lambda _, **_generator: indices).batches()


SHARD_OF = torch.arange(20).repeat_interleave(10)
"""Twenty shards of ten samples."""


def draw_shards(window: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(list(ShardSampler(SHARD_OF, window=window, generator=generator)))


@pytest.mark.parametrize("window", [1, 4, 19])
def test_samples_of_shards_are_drawn_once_from_a_window_of_them(window: int):
    drawn = draw_shards(window)
    assert sorted(drawn.tolist()) == list(range(200))
    shards = SHARD_OF[drawn]
    for position in range(200):
        started = set(shards[: position + 1].tolist())
        to_come = set(shards[position:].tolist())
        assert len(started & to_come) <= window
    if window == 4:
        mixed = [len(set(shards[start : start + 10].tolist())) for start in range(40, 150)]
        assert sum(mixed) / len(mixed) > 3


def test_the_order_of_shards_depends_on_the_seed():
    assert torch.equal(draw_shards(4), draw_shards(4))
    assert not torch.equal(draw_shards(4), draw_shards(4, seed=1))


class Shards(Labels):
    """A dataset in shards."""

    shard_of = SHARD_OF.numpy()

    def __init__(self, window: int) -> None:
        super().__init__([0] * 200)
        self.window = window


def test_a_window_of_all_shards_gives_the_order_of_files():
    def draw(dataset: object) -> list[int]:
        return list(shuffled_sampler(dataset, generator=torch.Generator().manual_seed(3)))

    assert draw(Shards(20)) == draw(Labels([0] * 200))
    assert draw(Shards(19)) != draw(Labels([0] * 200))


def test_subsets_of_shards_are_drawn_from_a_window_too():
    subset = Subset(Shards(2), [*range(35, 95), 150])
    drawn = list(shuffled_sampler(subset, generator=torch.Generator().manual_seed(0)))
    assert sorted(drawn) == list(range(61))
    shards = SHARD_OF[torch.tensor(subset.indices)[drawn]].tolist()
    for position in range(61):
        assert len(set(shards[: position + 1]) & set(shards[position:])) <= 2


def test_what_loads_the_next_batches_sees_those_that_are_still_to_come():
    seen = []

    def prefetch(batches: list[list[int]]) -> list[list[int]]:
        seen.append(len(batches))
        return batches

    sampler = order(prefetch=prefetch, resume_position=(0, 7))
    assert len(list(sampler)) == 13
    sampler.set_epoch(1)
    assert len(list(sampler)) == 20
    assert seen == [13, 20]
