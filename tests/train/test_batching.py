"""Data order: resuming is slicing, and worker processes change nothing."""

import multiprocessing
import os
import signal

import grain
import numpy as np
import pytest

from train import mesh as meshes
from train.data.batching import batches, in_turn, iterate
from train.feeding import place_batch, rows_here


def numbers(count=10, batch_size=4):
    return batches(
        [list(range(count))], lambda n: {"n": np.array(n)}, batch_size=batch_size, seed=3
    )


def test_one_source_is_shuffled_as_it_always_was():
    plain = grain.MapDataset.source(range(10)).seed(3).shuffle().repeat().batch(4)
    assert [b["n"].tolist() for b in iterate(numbers(), 0, 10)] == [
        plain[i].tolist() for i in range(10)
    ]


def test_resume_is_a_slice_and_every_pass_is_complete():
    whole = [b["n"].tolist() for b in iterate(numbers(), 0, 10)]
    assert [b["n"].tolist() for b in iterate(numbers(), 4, 10)] == whole[4:]
    seen = [n for batch in whole for n in batch]
    assert sorted(seen[:10]) == sorted(seen[10:20]) == list(range(10))
    assert seen[:10] != seen[10:20]


def test_workers_give_the_same_batches():
    alone = [b["n"].tolist() for b in iterate(numbers(), 2, 9)]
    helped = []
    for batch in iterate(numbers(), 2, 9, num_workers=2):
        helped.append(batch["n"].tolist())
        if len(helped) >= 2:  # both are up; a scheduler tells the whole group
            workers = multiprocessing.active_children()
            assert len(workers) == 2
            for worker in workers:
                os.kill(worker.pid, signal.SIGTERM)
    assert helped == alone


def test_too_small_a_source_is_refused():
    with pytest.raises(ValueError, match="3 records cannot fill a batch of 4"):
        numbers(count=3)


def mixed(sizes, weights=(), batch_size=4, seed=3):
    sources = [[1000 * i + n for n in range(size)] for i, size in enumerate(sizes)]
    transform = lambda n: {"n": np.array(n)}  # noqa: E731
    return batches(sources, transform, weights=weights, batch_size=batch_size, seed=seed)


@pytest.mark.parametrize(
    "sizes, weights, share", [((6, 18), (), 0.25), ((6, 18), (3.0, 1.0), 0.75)]
)
def test_sources_are_mixed_record_by_record(sizes, weights, share):
    whole = np.concatenate([b["n"] for b in iterate(mixed(sizes, weights), 0, 24)])
    again = [b["n"] for b in iterate(mixed(sizes, weights), 10, 24)]
    np.testing.assert_array_equal(np.concatenate(again), whole[40:])
    first = whole < 1000
    assert abs(first.mean() - share) < 0.02
    windows = np.lib.stride_tricks.sliding_window_view(first, 8).mean(axis=1)
    assert abs(windows - share).max() <= 0.125  # nowhere does one source go alone
    alone = np.concatenate([b["n"] for b in iterate(mixed(sizes[:1]), 0, 24)])
    np.testing.assert_array_equal(whole[first], alone[: first.sum()])
    second = whole[~first]  # each pass through it is whole, too
    assert sorted(second[:18]) == [1000 + n for n in range(18)]
    other = np.concatenate([b["n"] for b in iterate(mixed(sizes, weights, seed=4), 0, 24)])
    assert whole.tolist() != other.tolist()


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0), (1.0, 2.0, 3.0)])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ValueError, match="give each source records, and a weight above 0"):
        mixed((6, 18), weights)


@pytest.mark.parametrize("rows", [(0, 1), (3,), (2, 0)])
def test_a_share_is_rows_of_the_whole_and_makes_no_others(rows):
    made = []

    def transform(n):
        made.append(n)
        return {"n": np.array(n)}

    sources = [list(range(10)), [1000 + n for n in range(30)]]
    both = [
        batches(sources[:1], transform, batch_size=4, seed=3),
        batches(sources[1:], transform, batch_size=4, seed=4),
    ]
    taken = in_turn(both, (1.0, 2.0))
    whole = [b["n"] for b in iterate(taken, 0, 9)]
    made.clear()
    mine = [b["n"] for b in iterate(taken, 0, 9, rows=rows)]
    np.testing.assert_array_equal(np.stack(mine), np.stack(whole)[:, list(rows)])
    assert len(made) <= len(rows) * (9 + 3)  # what is read ahead counts


def test_sizes_that_differ_cannot_take_turns():
    with pytest.raises(ValueError, match=r"batches of \[2, 4\] records cannot take turns"):
        in_turn([numbers(batch_size=2), numbers()], (1.0, 1.0))


RULES = {"B": ("data", "fsdp")}


@pytest.mark.parametrize(
    "shape, batch_size, ways",
    [({"data": 8}, 8, 8), ({"data": 8}, 6, 1),
     ({"data": 2, "fsdp": 2, "tensor": 2}, 8, 4), ({"data": 2, "fsdp": 2, "tensor": 2}, 6, 2)],
)  # fmt: skip
def test_a_batch_is_placed_by_rows(shape, batch_size, ways):
    mesh = meshes.build(shape)
    batch = numbers(count=20, batch_size=batch_size)[0]
    rows = rows_here(batch_size, mesh, RULES)
    assert rows == tuple(range(batch_size))
    placed = place_batch(batch, mesh, RULES, rows=rows, batch_size=batch_size)["n"]
    np.testing.assert_array_equal(placed, batch["n"])
    assert placed.addressable_shards[0].data.shape == (batch_size // ways,)
