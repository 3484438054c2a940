"""The fused attention against one written out, in every shape that a trunk asks of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers.attention import Attention, LayerCache, narrowed
from layers.block import causal_mask
from layers.rope import rotations
from tests.tokenizer.menu import QUICK

B, T, S, H = 2, 5, 9, 8
AT = jnp.array([[0], [3]]) + jnp.arange(T)  # rows that start at different places of a cache
MASKS = {
    "everything": jnp.ones((B, 1, T, S), bool),
    "causal": causal_mask(jnp.broadcast_to(jnp.arange(T), (B, T)), S),
    "in a cache": causal_mask(AT, S),
    "some": jax.random.bernoulli(jax.random.key(3), 0.3, (B, 1, T, S)) | jnp.eye(T, S, dtype=bool),
}


def plain(query, key, value, mask):
    """softmax(q k^T / sqrt(H)) v in float32, a kv head for each group of neighbouring heads."""
    q, k, v = (x.astype(jnp.float32) for x in (query, key, value))
    k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
    scores = jnp.einsum("btnh,bsnh->bnts", q, k) * q.shape[-1] ** -0.5
    scores = jnp.where(mask, scores, -jnp.inf)
    weight = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    return jnp.einsum("bnts,bsnh->btnh", weight / weight.sum(axis=-1, keepdims=True), v)


def fused(query, key, value, mask):
    return jax.nn.dot_product_attention(query, key, value, mask=mask)


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def found(attention, qkv, mask):
    """Its output and the gradients of its squares."""
    loss = lambda x: (jnp.square(y := attention(*x, mask)).sum(), y)  # noqa: E731
    (_, out), grads = jax.value_and_grad(loss, has_aux=True)(qkv)
    return out, grads


def draw(num_heads, num_kv_heads):
    rng = np.random.default_rng(num_heads + num_kv_heads)
    shapes = ((B, T, num_heads, H), (B, S, num_kv_heads, H), (B, S, num_kv_heads, H))
    return [2 * rng.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)], ids=str)
def test_the_fused_attention_is_the_plain_one(heads):
    qkv = draw(*heads)
    outs = []
    for mask in MASKS.values():
        (out, grads), (wanted, by_hand) = (found(f, qkv, mask) for f in (fused, plain))
        np.testing.assert_allclose(out, wanted, atol=1e-5)
        for a, b in zip(grads, by_hand, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-4)
        outs.append(np.asarray(out))
    for i, out in enumerate(outs):  # the masks are told apart
        assert all(np.abs(out - other).max() > 0.1 for other in outs[:i])


def test_in_bfloat16_scores_are_not_rounded_before_the_softmax():
    q, k, v = np.zeros((3, 1, 2, 1, 4), np.float32)
    q[..., :2] = 1
    k[0, :, 0, 0], k[0, 1, 0, 1] = 256, 1  # scores 256 / 2 and 257 / 2; bfloat16 has no 257
    v[0, 1] = 1
    out = jax.nn.dot_product_attention(*(jnp.array(x, jnp.bfloat16) for x in (q, k, v)))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), 1 / (1 + np.exp(-0.5)), atol=2**-8)


def test_a_query_that_may_look_nowhere_is_finite_and_passes_finite_gradients():
    nowhere = MASKS["causal"].at[0, :, 2].set(False)
    out, grads = found(fused, draw(4, 2), nowhere)
    assert jnp.isfinite(out).all() and all(jnp.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_layer_with_a_cache_is_the_plain_one_over_what_it_wrote(dtype):
    layer = Attention({"D": 16, "N": 4, "K": 2, "H": H}, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(layer)
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(B, T, 16)), dtype)
    old = jnp.array(rng.normal(size=(2, B, 2, S, H)), dtype)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(state, x, old):
        layer, mask = nnx.merge(graphdef, state), MASKS["in a cache"]
        still = rotations(jnp.zeros((B, T, 1)), H)
        out, cache = layer(x, still, mask, cache=LayerCache(*old), at=AT[:, 0])
        keys, values = (kept.swapaxes(1, 2) for kept in (cache.keys, cache.values))
        wanted = layer.out(plain(layer.query(x), keys, values, mask))
        return out, wanted, cache, (layer.key(x), layer.value(x))

    out, wanted, cache, fresh = run(state, x, old)
    for kept, before, new in zip((cache.keys, cache.values), old, fresh, strict=True):
        assert out.dtype == kept.dtype == dtype
        for row, first in enumerate((0, 3)):
            there = np.array(before[row])
            there[:, first : first + T] = new[row].swapaxes(0, 1)
            np.testing.assert_array_equal(kept[row], there)
    tolerance = 1e-5 if dtype == "float32" else 0.03
    np.testing.assert_allclose(out.astype(jnp.float32), wanted, atol=tolerance)


def test_in_int8_a_number_is_off_by_half_a_level_of_its_row_at_most():
    x = np.random.default_rng(1).normal(size=(2, 5, 3, 8)).astype(np.float32)
    x[0, 0] *= 100.0
    x[1, 1] = 0.0
    levels, scales = jax.jit(narrowed, compiler_options=QUICK)(x)
    assert levels.dtype == jnp.int8 and scales.shape == (2, 5, 3, 1)
    back = np.asarray(levels) * np.asarray(scales)
    assert (np.abs(back - x) <= np.asarray(scales) * 0.5001).all()
    largest = np.abs(x).max(axis=-1)
    np.testing.assert_allclose(np.abs(back).max(axis=-1), largest, rtol=1e-6)
