"""What a machine can do at best: the floor under any program."""

from __future__ import annotations

import dataclasses
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train.hardware import preset


def seconds(run: Callable[[], object], *, times: int = 5) -> float:
    """The least of some runs, after one that warms up."""
    run()
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def _by_all_cores(size_bytes: int, run: Callable[[np.ndarray, np.ndarray], object]) -> float:
    """Seconds in which every core does `run(a, b)` on its own part of two arrays of that size."""
    count = len(os.sched_getaffinity(0))
    parts = [(np.ones(size_bytes // 4 // count, np.float32),
              np.zeros(size_bytes // 4 // count, np.float32)) for _ in range(count)]  # fmt: skip
    with ThreadPoolExecutor(count) as threads:
        return seconds(lambda: list(threads.map(lambda pair: run(*pair), parts)))


def copy_bytes_per_s(size_bytes: int) -> float:
    """Bytes read plus bytes written a second, so twice the array's size a copy, by all cores that
    copy an array larger than most caches; on an accelerator by one that adds 1 to it."""
    if jax.default_backend() != "cpu":
        array = jnp.zeros(size_bytes // 4, jnp.float32)
        add = jax.jit(lambda x: x + 1)
        return 2 * size_bytes / seconds(lambda: add(array).block_until_ready())
    return 2 * size_bytes / _by_all_cores(size_bytes, lambda a, b: np.copyto(b, a))


def read_bytes_per_s(size_bytes: int) -> float:
    """Bytes read a second, nothing written, by all cores that add up an array larger than most
    caches (by `sum` or by the product with itself, whichever is faster)."""
    if jax.default_backend() != "cpu":
        array = jnp.ones(size_bytes // 4, jnp.float32)
        total = jax.jit(jnp.sum)
        return size_bytes / seconds(lambda: total(array).block_until_ready())
    ways = (lambda a, b: a.sum(), lambda a, b: a @ a)
    return size_bytes / min(_by_all_cores(size_bytes, way) for way in ways)


def matmul_flops_per_s(side: int = 0, dtype: str = "float32") -> float:
    """FLOPs a second of a product of square matrices, of 2048 a side on a CPU, else 8192."""
    side = side or (2048 if jax.default_backend() == "cpu" else 8192)
    square = jnp.ones((side, side), dtype)
    product = jax.jit(lambda x: x @ x)
    return 2 * side**3 / seconds(lambda: product(square).block_until_ready())


def peak_bytes() -> int:
    """The most that the device has held since the process began; of a CPU, that the process has."""
    told = jax.devices()[0].memory_stats() or {}
    known = told.get("peak_bytes_in_use")
    return int(known or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


@dataclasses.dataclass(frozen=True)
class Machine:
    """What was measured of it, and the `peak_flops_per_s` (bf16, dense) of `train.hardware` where
    the device kind is known there."""

    device: str
    platform: str
    cores: int
    copy_bytes_per_s: float
    read_bytes_per_s: float
    matmul_flops_per_s: dict[str, float]  # by dtype
    peak_flops_per_s: float | None

    @classmethod
    def measured(cls, dtypes: list[str], *, size_bytes: int) -> Machine:
        """This one, products in each of these dtypes, arrays of `size_bytes` copied and read."""
        device: Any = jax.devices()[0]
        return cls(
            device.device_kind, device.platform, len(os.sched_getaffinity(0)),
            copy_bytes_per_s(size_bytes), read_bytes_per_s(size_bytes),
            {dtype: matmul_flops_per_s(dtype=dtype) for dtype in dtypes},
            preset(device.device_kind).peak_flops_per_s,
        )  # fmt: skip

    def floor_s(self, num_bytes: float, flops: float, *, dtype: str, only_read: bool) -> float:
        """Seconds that it must take to move so many bytes and to do so many FLOPs, whichever takes
        longer: bytes by the rate of a copy (what it reads and what it writes both counted), or by
        that of reading alone."""
        rate = self.read_bytes_per_s if only_read else self.copy_bytes_per_s
        return max(num_bytes / rate, flops / self.matmul_flops_per_s[dtype])
