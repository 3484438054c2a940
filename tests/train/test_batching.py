"""Data order: resuming is slicing, and worker processes change nothing."""

import grain
import numpy as np
import pytest

from train.data.batching import batches, iterate


def numbers(count=10, batch_size=4):
    return batches(
        [list(range(count))], lambda n: {"n": np.array(n)}, batch_size=batch_size, seed=3
    )


def test_one_source_is_shuffled_as_it_always_was():
    plain = grain.MapDataset.source(range(10)).seed(3).shuffle().repeat().batch(4)
    assert [b["n"].tolist() for b in iterate(numbers(), 0, 10)] == [
        plain[i].tolist() for i in range(10)
    ]


def test_sources_are_drawn_by_weight_and_resume():
    sources = [range(10), range(100, 1000), range(1000, 1001)]
    drawn = {"weights": (6.0, 3.0, 1.0), "batch_size": 4, "seed": 3}
    mixed = batches(sources, lambda n: {"n": np.array(n)}, **drawn)
    whole = [b["n"].tolist() for b in iterate(mixed, 0, 25)]
    assert [b["n"].tolist() for b in iterate(mixed, 7, 25)] == whole[7:]
    seen = [n for batch in whole for n in batch]
    counts = [sum(n in source for n in seen) for source in sources]
    assert np.abs(np.array(counts) - (60, 30, 10)).max() <= 1
    assert sorted(n for n in seen if n < 10)[:6] == [0] * 6  # every pass is complete
    with pytest.raises(ValueError, match="6 records cannot fill a batch of 7"):
        batches([range(2), range(4)], dict, batch_size=7, seed=0)


def test_resume_is_a_slice_and_every_pass_is_complete():
    whole = [b["n"].tolist() for b in iterate(numbers(), 0, 10)]
    assert [b["n"].tolist() for b in iterate(numbers(), 4, 10)] == whole[4:]
    seen = [n for batch in whole for n in batch]
    assert sorted(seen[:10]) == sorted(seen[10:20]) == list(range(10))
    assert seen[:10] != seen[10:20]


def test_workers_give_the_same_batches():
    alone = [b["n"].tolist() for b in iterate(numbers(), 2, 9)]
    helped = [b["n"].tolist() for b in iterate(numbers(), 2, 9, num_workers=2)]
    assert helped == alone


def test_too_small_a_source_is_refused():
    with pytest.raises(ValueError, match="3 records cannot fill a batch of 4"):
        numbers(count=3)
