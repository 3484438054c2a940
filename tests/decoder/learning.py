"""A few steps of Adam and a press, for tests of what a decoder learns and prints."""

import functools

import jax
import optax
from flax import nnx

from sampling.printing import print_codes
from tests.tokenizer.menu import QUICK


def fitted(task, data_of, num_steps, *, seed=0):
    """The model after so many steps, each on `data_of(key)`, and the losses."""
    graphdef, params, _ = nnx.split(task.init(nnx.Rngs(seed)), nnx.Param, ...)
    params = nnx.to_pure_dict(params)
    optimizer = optax.adam(1e-2)
    opt = optimizer.init(params)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def step(params, opt, key):
        data = data_of(key)
        loss = lambda p: task.loss(nnx.merge(graphdef, p, {}), data, key)[0]  # noqa: E731
        value, grads = jax.value_and_grad(loss)(params)
        updates, opt = optimizer.update(grads, opt)
        return optax.apply_updates(params, updates), opt, value

    losses = []
    for key in jax.random.split(jax.random.key(seed), num_steps):
        params, opt, value = step(params, opt, key)
        losses.append(float(value))
    return nnx.merge(graphdef, params, {}), losses


def bound(task, model):
    """The task's probes as functions of arrays alone."""
    return {n: lambda *xs, _p=p: _p(model, *xs) for n, p in task.probes().items()}


def printer(task, model, press):
    """A compiled `(codes, masked, given, keys) -> codes`."""
    probes = bound(task, model)
    make = lambda *arrays: print_codes(probes, *arrays, press=press)  # noqa: E731
    return jax.jit(make, compiler_options=QUICK)
