"""The contract every quantizer is held to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokenizer.model import QuantizerConfig, make_quantizer

CONFIGS = [
    QuantizerConfig("fsq", (8, 5, 3), 1),
    QuantizerConfig("fsq", (2, 2, 2, 2), 1),
    QuantizerConfig("product", (8,), 6),
    QuantizerConfig("product", (5, 4), 3),
]


@pytest.fixture(params=CONFIGS, ids=str)
def quantizer(request):
    return make_quantizer(request.param)


def vectors(quantizer, seed=0):
    return 1.5 * jax.random.normal(jax.random.key(seed), (2, 5, 4, quantizer.width))


def test_codes_are_in_range_and_lookup_inverts(quantizer):
    out = quantizer.quantize(vectors(quantizer))
    assert out.codes.shape == (2, 5, 4, quantizer.num_codes)
    assert out.codes.min() >= 0 and out.codes.max() < quantizer.codebook_size
    np.testing.assert_allclose(quantizer.lookup(out.codes), out.values, atol=1e-6)
    assert jnp.abs(out.values).max() <= 1


def test_every_code_survives_a_round_trip(quantizer):
    V, Q = quantizer.codebook_size, quantizer.num_codes
    codes = jnp.broadcast_to(jnp.arange(V)[:, None, None, None], (V, 1, 1, Q))
    values = quantizer.lookup(codes)
    again = quantizer.quantize(jnp.arctanh(values.clip(-0.999, 0.999))).codes
    np.testing.assert_array_equal(again, codes)


def test_gradient_passes_straight_through(quantizer):
    z = vectors(quantizer, 1)
    passed = jax.grad(lambda z: quantizer.quantize(z).values.sum())(z)
    np.testing.assert_allclose(passed, 1 - jnp.tanh(z) ** 2, atol=1e-5)


def test_all_levels_are_used(quantizer):
    codes = quantizer.quantize(
        jnp.concatenate([vectors(quantizer, seed) for seed in range(40)])
    ).codes
    assert len(np.unique(codes)) > quantizer.codebook_size // 2


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="there are: fsq, product"):
        make_quantizer(QuantizerConfig("vq"))
