"""Products and attention of few tokens in C++ are those of XLA, and without a compiler there is
only XLA."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers.attention import LayerCache
from layers.block import Block, BlockConfig, Stack, causal_mask
from layers.native import building, rows
from layers.native import step as native
from layers.quantized import Quantized, quantized
from layers.rope import rotations

CONFIG = BlockConfig(48, 2, 4, 2, 16, 72, qk_norm=True)
needs_compiler = pytest.mark.skipif(not building.compiler(), reason="there is no C++ compiler here")


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    assert building.ready() == bool(building.compiler())


def kernel(depth, columns, kind):
    wide = jax.random.normal(jax.random.key(depth), (depth, columns))
    if kind == "int8":
        return quantized(wide, (0,))
    return wide.astype(kind)


def exact(kernel):
    wide = kernel.wide() if isinstance(kernel, Quantized) else kernel
    return np.asarray(wide, np.float64)


@needs_compiler
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 8, 23])
def test_products_are_those_of_whatever_the_kernel_holds(num_rows, kind):
    x = jax.random.normal(jax.random.key(0), (num_rows, 800))  # more than rows share at a time
    kernels = [kernel(800, n, kind) for n in (32, 33, 100)]
    packed = [rows.panels(k, 1) for k in kernels]
    more = jax.random.normal(jax.random.key(1), (num_rows, 100))
    for made, one in zip(rows.products(x, packed), kernels, strict=True):
        wanted = np.asarray(x, np.float64) @ exact(one)
        np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=2e-4)
    added = rows.products(x, packed[2:], residual=more)[0]
    np.testing.assert_allclose(added, np.asarray(x) @ exact(kernels[2]) + more, atol=2e-4)


@needs_compiler
def test_norm_before_and_gate_after():
    x = 3 * jax.random.normal(jax.random.key(0), (5, 96))
    scale = jax.random.uniform(jax.random.key(1), (96,))
    gate, up = (0.1 * kernel(96, 70, "float32") * s for s in (1, 2))
    packed = [rows.panels(k, 1) for k in (gate, up)]
    (made,) = rows.products(x, packed, norm=(scale, 1e-6), gated=True)
    normal = x * jax.lax.rsqrt(jnp.square(x).mean(axis=1, keepdims=True) + 1e-6) * scale
    np.testing.assert_allclose(made, jax.nn.silu(normal @ gate) * (normal @ up), atol=1e-5)


def steps(choice, config, *, own_offsets, num_tokens=1):
    """What a stack of two layers makes of some tokens after a prompt, and its cache."""
    stack = Stack(lambda r: Block(config, rngs=r), 2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (3, num_tokens, config.width))
    at = jnp.array([4, 6, 2]) if own_offsets else jnp.array(6)
    places = (at.reshape(-1, 1) + jnp.arange(num_tokens)) * jnp.ones((3, 1), jnp.int32)
    turn = rotations(places[..., None].astype(jnp.float32), config.head_size)
    shape = (3, config.num_kv_heads, 12, config.head_size)
    before = [jax.random.normal(jax.random.key(i), shape) for i in (5, 6, 7, 8)]
    cache = tuple(LayerCache(*before[i : i + 2]) for i in (0, 2))
    mask = causal_mask(places, 12)

    def run(x, cache):
        with rows.use_native(choice):
            layers, cache = native.packed(
                stack.layer, stack.unstacked(), cache, 3 * num_tokens, config
            )
        step = lambda block, x, kept: block(x, turn, mask, cache=kept, at=at)  # noqa: E731
        return stack.fold(step, x, cache, layers=layers)

    text = str(jax.make_jaxpr(run)(x, cache))
    assert ("letterpress_products" in text) == (choice == "always")
    return jax.jit(run)(x, cache)


@needs_compiler
@pytest.mark.parametrize("own_offsets", [False, True], ids=["one offset", "each its own"])
@pytest.mark.parametrize("head", [16, 24], ids=["", "odd heads"])
def test_a_step_is_the_blocks(head, own_offsets):
    config = dataclasses.replace(CONFIG, head_size=head, qk_norm=own_offsets)
    num_tokens = 2 if own_offsets else 1
    wanted, found = (
        steps(choice, config, own_offsets=own_offsets, num_tokens=num_tokens)
        for choice in ("off", "always")
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("why", ["switched off", "no compiler", "broken compiler"])
def test_without_it_there_is_xla(monkeypatch, why, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if why == "switched off":
        monkeypatch.setenv(building.SWITCH, "off")
    elif why == "no compiler":
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setenv("CXX", "false")
    monkeypatch.setattr(building, "ready", building.ready.__wrapped__)
    with rows.use_native("always"):
        assert not rows.can_serve(2, 1 << 30, "float32")
    assert not list(tmp_path.rglob("*.so"))


@needs_compiler
def test_it_serves_large_layers_of_few_rows_on_one_device():
    large, small = rows.FEWEST_NUMBERS, rows.FEWEST_NUMBERS - 1
    assert rows.can_serve(2, large, "float32")
    assert not rows.can_serve(2, small, "float32")
    assert not rows.can_serve(rows.MOST_ROWS + 1, large, "float32")
    assert not rows.can_serve(2, large, "bfloat16")
    with jax.set_mesh(jax.make_mesh((2,), ("data",))):
        assert not rows.can_serve(2, large, "float32")
    with pytest.raises(ValueError, match="native 'on' is not known; there is: auto, off, always"):
        rows.use_native("on").__enter__()
