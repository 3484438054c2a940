"""A decoder whose trunk computes in bfloat16: near float32, and its cache is its forward."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from decoder.model import Decoder
from decoder.task import DecoderTask
from tests.decoder.pages import BLOCKS, batch, config, every_step
from tests.tokenizer.menu import QUICK

GRID = (2, 3)
NEAR = 0.04  # of the largest logit


def test_forward_loss_gradients_and_printing():
    data = batch(2, grid=GRID)
    codes = data["codes"].astype(jnp.int32)
    told = {name: array for name, array in data.items() if name != "codes"}
    T, out = GRID[0] * GRID[1], {}
    params = None
    for dtype in ("float32", "bfloat16"):
        shape = config(blocks=dataclasses.replace(BLOCKS, dtype=dtype))
        task = DecoderTask(shape)
        graphdef, state = nnx.split(
            nnx.eval_shape(lambda shape=shape: Decoder(shape, rngs=nnx.Rngs(0)))
        )
        if params is None:
            make = lambda shape=shape: nnx.state(Decoder(shape, rngs=nnx.Rngs(0)))  # noqa: E731
            params = nnx.to_pure_dict(jax.jit(make, compiler_options=QUICK)())
        assert {x.dtype for x in jax.tree.leaves(state)} == {jnp.dtype("float32")}

        def run(params, graphdef=graphdef, task=task):
            model = nnx.merge(graphdef, params)
            whole = model(codes, jnp.ones((2, *GRID), bool), told).reshape(2, T, 6, 4)
            steps, sheet = every_step(model, codes, told)
            loss = lambda p: task.loss(nnx.merge(graphdef, p), data, jax.random.key(0))[0]  # noqa: E731
            graded = jax.value_and_grad(loss)(params)
            return whole, steps, sheet.cache[0].keys, *graded

        out[dtype] = jax.jit(run, compiler_options=QUICK)(params)
    (exact, _, wide, exact_loss, _), (near, steps, cache, loss, grads) = out.values()
    assert (wide.dtype, cache.dtype) == (jnp.float32, jnp.bfloat16)
    for array in (near, steps, loss, *jax.tree.leaves(grads)):
        assert array.dtype == jnp.float32 and jnp.isfinite(array).all()
    room = NEAR * float(jnp.abs(exact).max())
    assert 0 < float(jnp.abs(near - exact).max()) < room
    np.testing.assert_allclose(steps, near, atol=room)
    np.testing.assert_allclose(loss, exact_loss, rtol=5e-3)
