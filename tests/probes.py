"""Probes without a model: functions that may be asked and compiled as a model's are."""

import jax
from flax import nnx


class Loose(dict):
    """Plain functions by name; `traced` counts how often a program of them was traced. Options of
    the compiler go to each."""

    def __init__(self, functions, *, compiler_options=None):
        super().__init__(functions)
        self._inside = dict(functions)
        self._options = compiler_options
        self.traced = 0
        self._programs = {}

    def compiled(self, function, **options):
        key = function, tuple(sorted(options.items()))
        if key not in self._programs:

            def counted(*arrays, **named):
                self.traced += 1
                return function(self._inside, *arrays, **named)

            self._programs[key] = jax.jit(counted, compiler_options=self._options, **options)
        return self._programs[key]


def of_model(task, graphdef, weights, *, compiler_options=None):
    """A task's probes of a model with these weights, each and all programs compiled once."""
    names = task.probes()
    bound = {n: lambda *xs, _f=f, **o: _f(nnx.merge(graphdef, weights), *xs, **o)
             for n, f in names.items()}  # fmt: skip
    found = Loose(bound, compiler_options=compiler_options)
    for name, function in bound.items():
        found[name] = jax.jit(function, compiler_options=compiler_options)
    return found
