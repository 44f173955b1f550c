"""Order is a function of (seed, epoch, position), whoever shares the work."""

from vision_lab.data.order import Order


def indices(**arguments) -> list[int]:
    return Order(**{"size": 103, "batch_size": 5, "seed": 7, "shuffle": True} | arguments).indices()


def test_an_epoch_is_a_permutation_less_the_incomplete_batch():
    order = Order(103, batch_size=5, seed=7, shuffle=True)
    taken = order.indices()
    assert len(taken) == len(order) == 100
    assert len(set(taken)) == 100
    assert set(taken) <= set(range(103))


def test_seed_and_epoch_decide():
    order = Order(103, batch_size=5, seed=7, shuffle=True)
    first = order.indices()
    assert first == indices()
    assert first != indices(seed=8)
    order.set_epoch(1)
    assert order.indices() != first
    order.set_epoch(0)
    assert order.indices() == first
    assert list(order)[:2] == [(0, first[0]), (0, first[1])]


def test_fixed_keeps_the_first_order():
    order = Order(103, batch_size=5, seed=7, shuffle=True, fixed=True)
    order.set_epoch(3)
    assert order.indices() == indices()


def test_two_ranks_share_the_batches_of_one_process_with_twice_the_batch():
    whole = indices(batch_size=10)
    ranks = [indices(batch_size=5, rank=rank, world=2) for rank in (0, 1)]
    for step in range(len(whole) // 10):
        together = ranks[0][step * 5 : step * 5 + 5] + ranks[1][step * 5 : step * 5 + 5]
        assert together == whole[step * 10 : step * 10 + 10]


def test_evaluation_sees_each_sample_once_on_any_number_of_ranks():
    for world in (1, 2, 3, 4):
        orders = [Order(103, batch_size=5, seed=7, shuffle=False, rank=r, world=world) for r in range(world)]
        assert sorted(index for order in orders for index in order.indices()) == list(range(103))
        assert [len(order) for order in orders] == [len(order.indices()) for order in orders]


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert sorted(indices(size=3)) == [0, 1, 2]
    assert len(Order(3, batch_size=5, seed=0, shuffle=True)) == 3
