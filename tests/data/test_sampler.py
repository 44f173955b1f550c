"""The order is a function of (seed, epoch, position), for any number of processes."""

import pytest

from vision_lab.core.errors import DataError
from vision_lab.data.sampler import EpochBatchSampler


def order(**arguments) -> EpochBatchSampler:
    return EpochBatchSampler(
        **({"size": 103, "batch_size": 5, "seed": 7, "shuffle": True} | arguments)
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
            order(size=size, batch_size=4, shuffle=False, rank=r, world_size=world)
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
        order(size=100, batch_size=4, shuffle=False, rank=r, world_size=world, limit=2)
        for r in range(world)
    ]
    ranks = [each.batches() for each in orders]
    seen = sorted(index for batches in ranks for batch in batches[:2] for index in batch)
    assert seen == [place * 100 // (8 * world) for place in range(8 * world)]
    assert sorted(index for batches in ranks for batch in batches for index in batch) == list(
        range(100)
    )
    assert [len(batches) for batches in ranks] == [len(each) for each in orders]
    whole = order(size=100, batch_size=4, shuffle=False, limit=25).batches()
    assert whole == order(size=100, batch_size=4, shuffle=False).batches()
