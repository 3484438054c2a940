"""A planner whose trunk computes in bfloat16: what stays float32, and how near it comes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from layers.block import BlockConfig
from planner.model import PlannerConfig
from planner.task import PlannerTask
from tests.tokenizer.menu import QUICK

BLOCKS = BlockConfig(16, 2, 4, 2, 4, 24, qk_norm=True)
TASKS = {
    dtype: PlannerTask(PlannerConfig(dataclasses.replace(BLOCKS, dtype=dtype), 40, 20))
    for dtype in ("float32", "bfloat16")
}
IDS = jnp.array(np.random.default_rng(0).integers(1, 40, (3, 12)), jnp.int32)
BATCH = {"ids": IDS, "planned": jnp.broadcast_to(jnp.arange(12) > 3, IDS.shape)}
NEAR = 0.04  # of the largest logit: some ten roundings to 8 bits, in quadrature


@functools.cache
def fresh():
    """The same parameters for both."""
    return nnx.to_pure_dict(nnx.state(TASKS["float32"].init(nnx.Rngs(0))))


@functools.cache
def parts(dtype):
    graphdef, state = nnx.split(nnx.eval_shape(lambda: TASKS[dtype].init(nnx.Rngs(0))))
    return graphdef, nnx.to_pure_dict(state)


@functools.cache
def step(dtype):
    """parameters -> (logits, loss, gradients, the parameters a step downhill)."""
    graphdef, _ = parts(dtype)

    def run(params):
        def loss(params):
            model = nnx.merge(graphdef, params)
            return TASKS[dtype].loss(model, BATCH, jax.random.key(0))[0], model(IDS).logits

        (value, logits), grads = jax.value_and_grad(loss, has_aux=True)(params)
        norm = optax.tree.norm(grads)
        later = jax.tree.map(lambda p, g: p - 0.3 * g / norm, params, grads)
        return logits, value, grads, later

    return jax.jit(run, compiler_options=QUICK)


@functools.cache
def results(dtype):
    """The first step."""
    return step(dtype)(fresh())


def test_parameters_logits_loss_and_gradients_stay_float32():
    for array in jax.tree.leaves((results("bfloat16"), parts("bfloat16")[1])):
        assert array.dtype == jnp.float32
    assert all(jnp.isfinite(array).all() for array in jax.tree.leaves(results("bfloat16")))


def test_it_comes_near_float32_without_being_it():
    exact, exact_loss, exact_grads, _ = results("float32")
    near, loss, grads, _ = results("bfloat16")
    error = float(jnp.abs(near - exact).max() / jnp.abs(exact).max())
    assert 1e-4 < error < NEAR
    assert loss == pytest.approx(float(exact_loss), rel=2e-3)
    cosine = optax.tree.vdot(grads, exact_grads) / (
        optax.tree.norm(grads) * optax.tree.norm(exact_grads)
    )
    assert cosine > 0.995


def test_the_cache_agrees_with_the_whole():
    graphdef, _ = parts("bfloat16")

    def run(params):
        def one(carry, t):
            model, (at, cache) = nnx.merge(graphdef, params), carry
            out = model(jnp.take(IDS, t[None], axis=1), cache=cache, at=at)
            return (at + 1, out.cache), out.logits[:, 0]

        empty = nnx.merge(graphdef, params).empty_cache(3)
        (_, cache), logits = jax.lax.scan(one, (jnp.zeros(3, jnp.int32), empty), jnp.arange(12))
        return cache, logits.swapaxes(0, 1)

    cache, steps = jax.jit(run, compiler_options=QUICK)(fresh())
    assert {part.dtype for kept in cache for part in (kept.keys, kept.values)} == {
        jnp.dtype(jnp.bfloat16)
    }
    whole = results("bfloat16")[0]
    room = NEAR * float(jnp.abs(whole).max())
    assert float(jnp.abs(whole - steps).max()) < room
    best = jnp.sort(whole, axis=-1)
    clear = best[..., -1] - best[..., -2] > 2 * room
    assert clear.any()
    np.testing.assert_array_equal(whole.argmax(-1)[clear], steps.argmax(-1)[clear])


def test_it_learns():
    params, losses = fresh(), []
    for _ in range(12):
        _, loss, _, params = step("bfloat16")(params)
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]
