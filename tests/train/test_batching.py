"""Data order: resuming is slicing, and worker processes change nothing."""

import numpy as np
import pytest

from train.data.batching import batches, iterate


def numbers(count=10, batch_size=4):
    return batches(list(range(count)), lambda n: {"n": np.array(n)}, batch_size=batch_size, seed=3)


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
