"""From a process's rows of a batch to the global arrays that the step takes."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from layers.axes import partition_spec

Rules = tuple[tuple[str, Any], ...]


def _of(rules: Mapping[str, Any]) -> Rules:
    """Rules that a cache can have for a key."""
    return tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in rules.items())


@functools.lru_cache(maxsize=1024)
def _sharding(shape: tuple[int, ...], mesh: Mesh, rules: Rules) -> NamedSharding:
    axes = "B" + "_" * (len(shape) - 1)
    return NamedSharding(mesh, partition_spec(axes, shape, dict(rules), dict(mesh.shape)))


def rows_here(batch_size: int, mesh: Mesh, rules: Mapping[str, Any]) -> tuple[int, ...]:
    """The rows of a batch that this process's devices hold, in order: all of them where the rule of
    B does not divide the batch."""
    shape = (batch_size,)
    places = _sharding(shape, mesh, _of(rules)).addressable_devices_indices_map(shape)
    spans = [range(batch_size)[index[0]] for index in places.values() if index is not None]
    return tuple(sorted({row for span in spans for row in span}))


def place_batch(
    batch: Mapping[str, np.ndarray],
    mesh: Mesh,
    rules: Mapping[str, Any],
    *,
    rows: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> dict[str, jax.Array]:
    """A batch onto the mesh, its first axis by the rule of B; where that does not divide it, every
    device holds (and computes) the whole of it.

    `rows` says which of the `batch_size` rows of the global batch the arrays have, in order (all of
    them, if it is None): those of `rows_here`.
    """
    placed, key = {}, _of(rules)
    for name, array in batch.items():
        size = len(array) if batch_size is None else batch_size
        shape = (size, *array.shape[1:])
        if size == len(array):  # all of them, in order
            part = array.__getitem__
        else:
            part = functools.partial(_part, array, rows or range(size), size)
        placed[name] = jax.make_array_from_callback(shape, _sharding(shape, mesh, key), part)
    return placed


def _part(array: np.ndarray, rows: Sequence[int], size: int, index: Any) -> np.ndarray:
    """The rows of `index` of the global batch, from an array that has these `rows` of it."""
    first, end, _ = index[0].indices(size)
    at = bisect.bisect_left(rows, first)
    return array[at : at + end - first]
