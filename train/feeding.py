"""From a process's rows of a batch to the global arrays that the step takes."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from layers.axes import partition_spec


def _sharding(shape: tuple[int, ...], mesh: Mesh, rules: Mapping[str, Any]) -> NamedSharding:
    axes = "B" + "_" * (len(shape) - 1)
    return NamedSharding(mesh, partition_spec(axes, shape, rules, dict(mesh.shape)))


def rows_here(batch_size: int, mesh: Mesh, rules: Mapping[str, Any]) -> tuple[int, ...]:
    """The rows of a batch that this process's devices hold, in order: all of them where the rule of
    B does not divide the batch."""
    places = _sharding((batch_size,), mesh, rules).addressable_devices_indices_map((batch_size,))
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
    placed = {}
    for name, array in batch.items():
        size = len(array) if batch_size is None else batch_size
        shape = (size, *array.shape[1:])

        def part(index: Any, array: Any = array, size: int = size) -> np.ndarray:
            first, end, _ = index[0].indices(size)
            at = first if rows is None else bisect.bisect_left(rows, first)
            return array[at : at + end - first]

        placed[name] = jax.make_array_from_callback(shape, _sharding(shape, mesh, rules), part)
    return placed
