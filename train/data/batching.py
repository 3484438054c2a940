"""Batches through Grain: item i of a data set is step i's batch, so resuming is slicing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

Transform = Callable[[Any], Mapping[str, np.ndarray]]


def batches(
    sources: Sequence[Any],
    transform: Transform,
    *,
    weights: Sequence[float] | None = None,
    batch_size: int,
    seed: int,
    shuffle: bool = True,
) -> grain.MapDataset:
    """An endless data set of stacked batches over random-access sources (`__len__`,
    `__getitem__`), each drawn in proportion to its weight (None for equal ones).

    The order is a pure function of (seed, position): every pass over a source is shuffled anew.
    Raises `ValueError` when the sources cannot fill one batch.
    """
    count = sum(map(len, sources))
    if count < batch_size:
        raise ValueError(f"a source of {count} records cannot fill a batch of {batch_size}")
    parts = [_endless(source, seed + i, shuffle=shuffle) for i, source in enumerate(sources)]
    dataset = parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, weights)
    return dataset.map(transform).batch(batch_size, drop_remainder=True)


def _endless(source: Any, seed: int, *, shuffle: bool) -> grain.MapDataset:
    dataset = grain.MapDataset.source(source).seed(seed)
    return (dataset.shuffle() if shuffle else dataset).repeat()


def iterate(
    dataset: grain.MapDataset, start_step: int, stop_step: int, *, num_workers: int = 0
) -> Iterator[Mapping[str, np.ndarray]]:
    """Batches `start_step` to `stop_step` in order, made by worker processes when there are any.

    Raises `RuntimeError` when the data set ran dry before the last of them.
    """
    items = dataset[start_step:stop_step].to_iter_dataset(
        grain.ReadOptions(num_threads=1 if num_workers == 0 else 0, prefetch_buffer_size=2)
    )
    if num_workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain's workers inherit the flags of absl
        items = items.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers))
    made = 0
    for batch in items:
        made += 1
        yield batch
    if start_step + made < stop_step:
        raise RuntimeError(
            f"the data set ran dry at step {start_step + made} of {stop_step}; make it repeat"
        )
