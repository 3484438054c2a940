"""The stack in training: what the backward pass makes again, and updates thinned by a key."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers.block import REMATS, Block, BlockConfig, Dropout, Stack, causal_mask, use_remat
from layers.masks import Mask
from layers.rope import rotations
from tests.bundles import RUN_OFTEN
from tests.tokenizer.menu import QUICK

CONFIG = BlockConfig(32, 3, 4, 2, 8, 48, qk_norm=True)
X = jax.random.normal(jax.random.key(1), (2, 6, 32))
# With the fusion emitters that the tests do without: only then is remat's rounding within 1e-6.
FUSED = {**RUN_OFTEN, **QUICK}


def gradient(remat):
    graphdef, state = nnx.split(Stack(lambda r: Block(CONFIG, rngs=r), 3, rngs=nnx.Rngs(0)))
    places = jnp.broadcast_to(jnp.arange(6), (2, 6))
    turn, mask = rotations(places[..., None].astype(jnp.float32), 8), causal_mask(places, 6)

    def loss(params):
        stack = nnx.merge(graphdef, params)
        layer = lambda layer, x, _: (layer(x, turn, mask)[0], None)  # noqa: E731
        return jnp.square(stack.scan(layer, X, remat=remat)[0]).sum()

    params = nnx.to_pure_dict(state)
    return str(jax.make_jaxpr(jax.grad(loss))(params)), jax.jit(
        jax.value_and_grad(loss), compiler_options=FUSED
    )(params)


def test_remat_changes_what_is_kept_and_not_what_is_found():
    plain, wanted = gradient("none")
    assert "remat" not in plain and "checkpoint" not in plain
    for name in set(REMATS) - {"none"}:
        program, found = gradient(name)
        assert "remat" in program or "checkpoint" in program
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), found, wanted
        )
    with pytest.raises(ValueError, match="remat 'some' is not known; there is: none, full, dots"):
        gradient("some")


def test_auto_is_what_is_said_around_the_stack():
    assert "nothing_saveable" not in gradient("auto")[0]
    with use_remat("full"):
        assert "nothing_saveable" in gradient("auto")[0]
    with pytest.raises(ValueError, match="'auto' is nothing to use"), use_remat("auto"):
        pass


@pytest.mark.parametrize("remat", ["none", "dots"])
def test_layers_one_after_another_are_the_loop(remat):
    """And what a checkpoint makes again is not merged with what was made before."""
    looped, wanted = gradient(remat)
    with use_remat("none", unroll=True):
        program, found = gradient(remat)
    assert "unroll=3" in program and "unroll=1" in looped
    assert ("prevent_cse=True" in program) == (remat == "dots")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, wanted)


def test_remat_keeps_less_the_more_it_makes_again():
    """Bytes that a gradient over four layers of 256 tokens needs beside arguments and results."""
    config = dataclasses.replace(CONFIG, num_layers=4)
    graphdef, state = nnx.split(
        nnx.eval_shape(lambda: Stack(lambda r: Block(config, rngs=r), 4, rngs=nnx.Rngs(0)))
    )
    places = jnp.zeros((2, 256, 1))

    def loss(params, x, remat):
        layer = lambda layer, x, _: (layer(x, rotations(places, 8), Mask(causal=True))[0], None)  # noqa: E731
        return jnp.square(nnx.merge(graphdef, params).scan(layer, x, remat=remat)[0]).sum()

    def spent(remat):
        grad = jax.jit(jax.grad(loss), static_argnums=2, compiler_options=QUICK)
        x = jax.ShapeDtypeStruct((2, 256, 32), jnp.float32)
        program = grad.lower(nnx.to_pure_dict(state), x, remat).compile()
        return program.memory_analysis().temp_size_in_bytes

    need = {name: spent(name) for name in ("full", "dots", "all_dots", "none")}
    assert need["full"] < need["dots"] < need["all_dots"] < need["none"], need
    assert need["full"] < 0.5 * need["none"], need


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_policy_makes_again_in_either_dtype(dtype):
    """Products in a gradient over one layer: seven of weights and two of attention, each with two
    of its own backwards. bfloat16 hides them in a derivative of ours, which policies look into only
    by a name."""
    config = dataclasses.replace(CONFIG, dtype=dtype)
    make = lambda: Stack(lambda r: Block(config, rngs=r), 3, rngs=nnx.Rngs(0), dtype=dtype)  # noqa: E731
    graphdef, state = nnx.split(nnx.eval_shape(make))
    turn = rotations(jnp.zeros((2, 6, 1)), 8)

    def loss(params, remat):
        layer = lambda layer, x, _: (layer(x, turn, Mask(causal=True))[0], None)  # noqa: E731
        return jnp.square(nnx.merge(graphdef, params).scan(layer, X, remat=remat)[0]).sum()

    def products(remat):
        program = jax.make_jaxpr(jax.grad(loss), static_argnums=1)(nnx.to_pure_dict(state), remat)
        return str(program).count(" = dot_general[") - 27

    again = {name: products(name) for name in REMATS}
    assert again == {"none": 0, "full": 8, "dots": 2, "all_dots": 0, "offload": 2}


def test_offloading_keeps_products_in_the_hosts_memory():
    program, _ = gradient("offload")
    assert "pinned_host" in program or "<host>" in program


def test_dropout_keeps_the_mean_and_zeroes_its_share():
    x = jnp.ones((4, 50, 100))
    key = jax.random.key(0)
    thin = Dropout(0.25, key)
    out = np.asarray(thin(x, 0))
    assert abs((out == 0).mean() - 0.25) < 0.01
    np.testing.assert_allclose(out[out != 0], 1 / 0.75, rtol=1e-6)
    np.testing.assert_array_equal(out, Dropout(0.25, key)(x, 0))
    assert (out != thin(x, 1)).any() and (out != Dropout(0.25, jax.random.key(1))(x, 0)).any()
    assert Dropout(0.25, key)(x.astype(jnp.bfloat16), 0).dtype == jnp.bfloat16
