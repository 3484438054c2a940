"""The tokenizer's shapes at every size, its inverses, and that it can learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.bundles import RUN_OFTEN
from tokenizer.backbones import BackboneConfig, cut, join
from tokenizer.model import QuantizerConfig, Tokenizer, TokenizerConfig
from tokenizer.task import TokenizerTask, as_bytes, as_float

TINY = TokenizerConfig(BackboneConfig(width=32, hidden=48), QuantizerConfig("product", (8,), 12))


@pytest.mark.parametrize("f", [4, 8, 16])
def test_join_inverts_cut(f):
    pixels = jax.random.normal(jax.random.key(0), (2, 32, 48, 3))
    np.testing.assert_array_equal(join(cut(pixels, f), f), pixels)


@pytest.mark.parametrize(("f", "size"), [(4, 64), (8, 256), (16, 512), (8, 1024)])
def test_real_sizes_have_the_shapes_they_should(f, size):
    config = TokenizerConfig(BackboneConfig(downsampling=f, width=512, hidden=2048, num_blocks=6))

    def codes():
        return Tokenizer(config, rngs=nnx.Rngs(0)).encode(jnp.zeros((1, size, size, 3)))

    assert jax.eval_shape(codes).shape == (1, size // f, size // f, 48)


def test_a_page_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="patches of 8 px"):
        Tokenizer(TINY, rngs=nnx.Rngs(0)).encode(jnp.zeros((1, 20, 16, 3)))


def test_decoding_the_codes_is_the_reconstruction():
    task = TokenizerTask(TINY)
    model, probes = task.init(nnx.Rngs(0)), task.probes()
    pixels = jax.random.randint(jax.random.key(1), (2, 16, 24, 3), 0, 256).astype(jnp.uint8)
    codes = probes["encode"](model, pixels)
    decoded = probes["decode"](model, codes).astype(int)
    reconstructed = probes["reconstruct"](model, pixels).astype(int)
    assert jnp.abs(decoded - reconstructed).max() <= 1
    np.testing.assert_array_equal(as_bytes(as_float(pixels)), pixels)


def test_overfits_eight_pages():
    task = TokenizerTask(TINY)
    graphdef, params, _ = nnx.split(task.init(nnx.Rngs(0)), nnx.Param, ...)
    params = nnx.to_pure_dict(params)
    blocks = jax.random.randint(jax.random.key(2), (8, 4, 4, 3), 0, 256).astype(jnp.uint8)
    batch = {"pixels": blocks.repeat(4, axis=1).repeat(4, axis=2)}
    optimizer = optax.adam(3e-3)
    opt = optimizer.init(params)

    @functools.partial(jax.jit, compiler_options=RUN_OFTEN)
    def step(params, opt):
        loss = lambda p: task.loss(nnx.merge(graphdef, p, {}), batch, jax.random.key(0))  # noqa: E731
        (_, scalars), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt = optimizer.update(grads, opt)
        return optax.apply_updates(params, updates), opt, scalars["psnr_db"]

    first = None
    for _ in range(400):
        params, opt, psnr_db = step(params, opt)
        first = psnr_db if first is None else first
    assert first < 12 and psnr_db > 25
