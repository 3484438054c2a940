"""What a machine can do at best: the floor under any program."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np


def seconds(run: Callable[[], object], *, times: int = 5) -> float:
    """The least of some runs, after one that warms up."""
    run()
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def copy_bytes_per_s(size_bytes: int = 1 << 29) -> float:
    """Bytes read and written a second by all cores that copy an array larger than most caches; on
    an accelerator by one that adds 1 to it."""
    if jax.default_backend() != "cpu":
        array = jnp.zeros(size_bytes // 4, jnp.float32)
        add = jax.jit(lambda x: x + 1)
        return 2 * size_bytes / seconds(lambda: add(array).block_until_ready())
    count = len(os.sched_getaffinity(0))
    parts = [(np.ones(size_bytes // 8 // count), np.zeros(size_bytes // 8 // count))
             for _ in range(count)]  # fmt: skip
    with ThreadPoolExecutor(count) as threads:
        copy = lambda: list(threads.map(lambda pair: np.copyto(pair[1], pair[0]), parts))  # noqa: E731
        return 2 * sum(source.nbytes for source, _ in parts) / seconds(copy)


def matmul_flops_per_s(side: int = 2048, dtype: str = "float32") -> float:
    """FLOPs a second of a product of square matrices."""
    square = jnp.ones((side, side), dtype)
    product = jax.jit(lambda x: x @ x)
    return 2 * side**3 / seconds(lambda: product(square).block_until_ready())
