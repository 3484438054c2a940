"""The devices of all processes meet before anything is compiled.

A group of devices opens its connections at its first collective, and those who came first wait only
so long (Gloo, on CPUs: 30 s; it cannot be set). Compiling takes some processes longer than that
than others, so a run must not leave it to its first step.
"""

from __future__ import annotations

import itertools

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.distributed.protocol import Cluster

_TIMEOUT_S = 900.0
# what the runtimes' errors say of a network or a process that is gone, and of no other thing
_LOST = ("gloo", "nccl", "UNAVAILABLE", "DEADLINE_EXCEEDED", "Connection", "coordination service")


def groups(mesh: Mesh) -> list[tuple[str, ...]]:
    """The axes along which collectives run: each that is cut, and their combinations."""
    cut = [name for name, size in mesh.shape.items() if size > 1]
    counts = range(1, len(cut) + 1)
    return [axes for count in counts for axes in itertools.combinations(cut, count)]


def meet(mesh: Mesh, cluster: Cluster) -> None:
    """Sum a number over each group of devices, once all processes are ready to; alone, nothing.

    Raises `ClusterError` when a process does not come.
    """
    if cluster.num_processes == 1:
        return
    ready = []
    for axes in groups(mesh):
        size = int(np.prod([mesh.shape[name] for name in axes]))
        spec, host = PartitionSpec(axes), np.ones(size, np.float32)
        ones = jax.make_array_from_callback(
            (size,), NamedSharding(mesh, spec), lambda index, host=host: host[index]
        )
        summed = jax.shard_map(
            lambda x, axes=axes: jax.lax.psum(x, axes),
            mesh=mesh, in_specs=spec, out_specs=PartitionSpec(),
        )  # fmt: skip
        ready.append((jax.jit(summed).lower(ones).compile(), ones, size))
    cluster.barrier("devices meet", timeout_s=_TIMEOUT_S)
    for program, ones, size in ready:
        if (found := float(np.asarray(program(ones))[0])) != size:
            raise RuntimeError(f"{size} devices added up to {found}: their network is broken")


def is_lost(problem: BaseException) -> bool:
    """Whether this error (or its cause) comes of other processes that are gone or were too slow, so
    that starting again will help."""
    cause: BaseException | None = problem
    while cause is not None:
        text = str(cause).lower()
        if isinstance(cause, jax.errors.JaxRuntimeError):
            return any(word.lower() in text for word in _LOST)
        cause = cause.__cause__
    return False
