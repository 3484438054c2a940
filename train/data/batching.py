"""Batches through Grain: item i of a data set is step i's batch, so resuming is slicing."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

Transform = Callable[[Any], Mapping[str, np.ndarray]]


class _Rows(grain.MapDataset):
    """Of every `batch_size` records those at `rows`, in the order of `rows`."""

    def __init__(self, parent: grain.MapDataset, rows: Sequence[int], batch_size: int) -> None:
        super().__init__(parent)
        self._rows = tuple(rows)
        self._batch_size = batch_size

    def __len__(self) -> int:
        return len(self._parent) // self._batch_size * len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, len(self._rows))
        return self._parent[batch * self._batch_size + self._rows[row]]


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batches of a run, item i for step i: stacks of `batch_size` records from one of
    `streams`, which take turns by their `shares`."""

    streams: tuple[grain.MapDataset, ...]
    shares: tuple[float, ...]
    batch_size: int

    def share(self, rows: Sequence[int]) -> grain.MapDataset:
        """The batches with these of their rows alone, which is all that is then read and made: what
        a process of several loads."""
        parts = [
            _Rows(stream, rows, self.batch_size).batch(len(rows), drop_remainder=True)
            for stream in self.streams
        ]
        return parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, self.shares)

    def __len__(self) -> int:
        return len(self.share(range(self.batch_size)))

    def __getitem__(self, step: int) -> Any:
        return self.share(range(self.batch_size))[step]


def batches(
    sources: Sequence[Any],
    transform: Transform,
    *,
    weights: Sequence[float] | None = None,
    batch_size: int,
    seed: int,
    shuffle: bool = True,
) -> Batches:
    """Endless batches over random-access sources (`__len__`, `__getitem__`), mixed record by
    record.

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
    mixed = parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, weights)
    return Batches((mixed.map(transform),), (1.0,), batch_size)


def in_turn(several: Sequence[Batches], shares: Sequence[float]) -> Batches:
    """Batches of each in turn, whole, in these shares; raises `ValueError` when they differ in
    size."""
    sizes = {each.batch_size for each in several}
    if len(sizes) != 1:
        raise ValueError(f"batches of {sorted(sizes)} records cannot take turns: give all one size")
    streams = tuple(stream for each in several for stream in each.streams)
    return Batches(streams, tuple(shares), sizes.pop())


def _outlast_signals(index: int, num_workers: int) -> None:
    """Schedulers and Ctrl-C signal every process of a job; the loop needs its workers until it has
    saved, and ends them by SIGKILL."""
    for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(signum, signal.SIG_IGN)


def iterate(
    batches: Batches,
    start_step: int,
    stop_step: int,
    *,
    rows: Sequence[int] | None = None,
    num_workers: int = 0,
) -> Iterator[Mapping[str, np.ndarray]]:
    """Batches `start_step` to `stop_step` in order (of each, these `rows` alone), made by worker
    processes when there are any.

    Raises `RuntimeError` when the data set ran dry before the last of them.
    """
    dataset = batches.share(range(batches.batch_size) if rows is None else rows)
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
