"""A task's probes as functions of arrays alone, and whole programs over them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding

from train.task import Task


class Programs:
    """What may be asked of a model of a task, each compiled once with the weights as arguments.

    With `whole`, a sharding that splits nothing, every process of several gets all of what comes
    back, and gives what all of them made alike.
    """

    def __init__(self, task: Task, graphdef: Any, *, whole: NamedSharding | None = None) -> None:
        self.task = task
        self._graphdef = graphdef
        self._whole = whole if jax.process_count() > 1 else None
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def compiled(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """`function(probes, *arrays)` as one of `(weights, extra, *arrays)`; `options` are
        `jax.jit`'s, its argument numbers those of the arrays alone. What is given by name is
        static."""
        key = function, str(sorted(options.items()))
        if key not in self._compiled:
            self._compiled[key] = self._compile(function, **options)
        return self._compiled[key]

    def _compile(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        def on(weights: Any, extra: Any, *arrays: Any, **named: Any) -> Any:
            model = nnx.merge(self._graphdef, weights, extra)
            probes = {n: functools.partial(f, model) for n, f in self.task.probes().items()}
            return function(probes, *arrays, **named)

        donated = options.pop("donate_argnums", ())
        donated = (donated,) if isinstance(donated, int) else donated
        places = tuple(2 + i for i in donated)
        jitted = jax.jit(on, **options, donate_argnums=places, out_shardings=self._whole)
        if self._whole is None:
            return jitted
        give = functools.partial(_everywhere, whole=self._whole)
        return lambda w, e, *arrays, **static: jitted(w, e, *give(arrays), **static)


class Probes(Mapping[str, Callable[..., Any]]):
    """The probes of a model with these weights; each of them and each program runs in a context
    of its own that `around` makes."""

    def __init__(
        self, programs: Programs, weights: Any, extra: Any,
        *, around: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:  # fmt: skip
        self._programs, self._arrays, self._around = programs, (weights, extra), around
        self._names = tuple(programs.task.probes())

    def compiled(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """`function(probes, *arrays)` compiled, as a function of the arrays alone. It is compiled
        once for all weights; `options` are `jax.jit`'s, for the arrays."""
        program = self._programs.compiled(function, **options)

        def ask(*arrays: Any, **named: Any) -> Any:
            with self._around():
                return program(*self._arrays, *arrays, **named)

        return ask

    def __getitem__(self, name: str) -> Callable[..., Any]:
        if name not in self._names:
            raise KeyError(name)
        return self.compiled(_only(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def inside(self, around: Callable[[], AbstractContextManager[None]]) -> Probes:
        """The same in other contexts."""
        return Probes(self._programs, *self._arrays, around=around)


@functools.cache
def _only(name: str) -> Callable[..., Any]:
    """The program that is one probe."""
    return lambda probes, *arrays: probes[name](*arrays)


def _everywhere(given: Any, *, whole: NamedSharding) -> Any:
    """Arrays that every process made alike, as arrays of all of them."""

    def place(x: Any) -> Any:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return x
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = place(jax.random.key_data(x))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, whole, lambda index: host[index])

    return jax.tree.map(place, given)
