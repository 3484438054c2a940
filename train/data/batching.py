"""Batches through Grain: item i of a data set is step i's batch, so resuming is slicing."""

from __future__ import annotations

import signal
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
    `__getitem__`), mixed record by record.

    `weights` are the sources' shares of the records; without any (None, or empty) their sizes are.
    Grain keeps both to within 1 % of the smallest. The order is a pure function of (seed,
    position): every pass through a source is shuffled anew. Raises `ValueError` when the sources
    cannot fill one batch, or a weight is missing or not above 0.
    """
    sizes = [len(source) for source in sources]
    weights = weights or sizes
    if sum(sizes) < batch_size:
        raise ValueError(f"{sum(sizes)} records cannot fill a batch of {batch_size}")
    if len(weights) != len(sizes) or min(*weights, *sizes) <= 0:
        raise ValueError(
            f"weights {list(weights)} of sources of {sizes} records: give each source records, and "
            "a weight above 0"
        )
    # The first source's order is that which it has alone.
    parts = [grain.MapDataset.source(s).seed(seed + i) for i, s in enumerate(sources)]
    parts = [(part.shuffle() if shuffle else part).repeat() for part in parts]
    return in_turn(parts, weights).map(transform).batch(batch_size, drop_remainder=True)


def in_turn(datasets: Sequence[grain.MapDataset], shares: Sequence[float]) -> grain.MapDataset:
    """Batches of several data sets, each whole, in these shares; of one alone, its own."""
    return grain.MapDataset.mix(datasets, shares) if len(datasets) > 1 else datasets[0]


def _outlast_signals(index: int, num_workers: int) -> None:
    """Schedulers and Ctrl-C signal every process of a job; the loop needs its workers until it has
    saved, and ends them by SIGKILL."""
    for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(signum, signal.SIG_IGN)


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
        items = items.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers), worker_init_fn=_outlast_signals
        )
    made = 0
    for batch in items:
        made += 1
        yield batch
    if start_step + made < stop_step:
        raise RuntimeError(
            f"the data set ran dry at step {start_step + made} of {stop_step}; make it repeat"
        )
