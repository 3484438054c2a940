"""Each part against its formula, and sharding that moves arrays without changing numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType

from layers.attention import Attention
from layers.axes import constrain, use_rules
from layers.block import Block, BlockConfig
from layers.einsum import Einsum, contract
from layers.embedding import Embed
from layers.losses import cross_entropy, reconstruction
from layers.mlp import SwiGLU
from layers.norm import RMSNorm
from layers.rope import rotate, rotations
from train.preflight.work import work

SIZES = {"D": 16, "N": 4, "K": 2, "H": 4, "F": 24}
RULES = {"B": ("data", "fsdp"), "D": "fsdp", "N": "tensor", "F": "tensor", "V": "tensor"}


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def still(B, T):
    return rotations(jnp.zeros((B, T, 1)), SIZES["H"])


def test_a_narrow_product_has_a_wide_gradient_of_its_kernel():
    """Rounded to bfloat16 it would be off by 2^-9; the two other numbers may be."""
    einsum = Einsum("BTNH,NHD->BTD", SIZES, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(einsum)
    x, pull = (normal(n, 2, 5, *s).astype(jnp.bfloat16) for n, s in ((1, (4, 4)), (2, (16,))))

    def back(x):
        y, pullback = jax.vjp(lambda p, x: nnx.merge(graphdef, p)(x), nnx.to_pure_dict(params), x)
        return y, *pullback(pull.astype(y.dtype))

    (y, grads, to_x), (wide_y, wide, wide_x) = back(x), back(x.astype(jnp.float32))
    assert y.dtype == to_x.dtype == jnp.bfloat16 and grads["kernel"].dtype == jnp.float32
    np.testing.assert_allclose(grads["kernel"], wide["kernel"], rtol=1e-5, atol=1e-5)
    for narrow, full in ((y, wide_y), (to_x, wide_x)):
        np.testing.assert_allclose(narrow.astype(jnp.float32), full, rtol=0.02, atol=0.05)


def test_what_is_multiplied_may_be_narrow_between_wide_numbers():
    """Of numbers that bfloat16 has it gives what the wide product gives, to the float32; of others
    it is off by their rounding. Gradients are wide."""
    one = {"rngs": nnx.Rngs(0)}
    narrow, wide = (Einsum("BTD,DQV->BTQV", {"D": 64, "Q": 1, "V": 9}, inner=inner, **one)
                    for inner in ("bfloat16", ""))  # fmt: skip
    wide.kernel[...] = narrow.kernel[...]
    x = normal(1, 2, 5, 64)
    assert narrow(x).dtype == jnp.float32
    apart = jnp.abs(narrow(x) - wide(x)).max()
    assert 1e-4 < apart < 0.03

    exact = lambda y: y.astype(jnp.bfloat16).astype(jnp.float32)  # noqa: E731
    x, kernel, pull = exact(x), exact(wide.kernel[...]), exact(normal(2, 2, 5, 1, 9))
    found, wanted = (jax.vjp(einsum.product, x, kernel) for einsum in (narrow, wide))
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found[1](pull), wanted[1](pull), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_attention_is_its_formula():
    attention = Attention(SIZES, rngs=nnx.Rngs(0), qk_norm=True)
    x = normal(1, 2, 5, 16)
    mask = jax.random.bernoulli(jax.random.key(2), 0.5, (2, 1, 5, 5)) | jnp.eye(5, dtype=bool)
    q, k = attention.query(x), attention.key(x)
    q, k = (y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6) for y in (q, k))
    k, v = (jnp.repeat(y, 2, axis=2) for y in (k, attention.value(x)))
    scores = jnp.einsum("bqnh,bsnh->bnqs", q, k) / np.sqrt(SIZES["H"])
    share = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf))
    expected = attention.out(jnp.einsum("bnqs,bsnh->bqnh", share, v))
    np.testing.assert_allclose(attention(x, still(2, 5), mask)[0], expected, atol=1e-5)


def test_what_the_mask_hides_does_not_matter():
    config = BlockConfig(16, 1, 4, 2, 4, 24)
    block = Block(config, rngs=nnx.Rngs(0))
    there = jnp.array([True, True, False, True, False])
    x = normal(1, 1, 5, 16)
    other = jnp.where(there[None, :, None], x, 100 * normal(2, 1, 5, 16))
    mask = there[None, None, None]
    before, after = (block(y, still(1, 5), mask)[0][:, there] for y in (x, other))
    np.testing.assert_array_equal(before, after)


def test_rms_norm_and_swiglu_are_their_formulas():
    x = normal(3, 2, 5, 16)
    norm, mlp = RMSNorm(16), SwiGLU(SIZES, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(jnp.mean(norm(x) ** 2, -1), 1, atol=1e-4)
    gate, up, down = (e.kernel[...] for e in (mlp.gate, mlp.up, mlp.down))
    expected = (x @ gate * jax.nn.sigmoid(x @ gate) * (x @ up)) @ down
    np.testing.assert_allclose(mlp(x), expected, atol=1e-5)


def test_rotation_is_a_complex_product_of_half_split_pairs():
    x, theta = normal(4, 1, 3, 2, 8), 10000.0
    turned = rotate(x, rotations(jnp.array([[[0.0], [1.0], [7.0]]]), 8, theta=theta))
    angles = np.array([0, 1, 7])[:, None] * theta ** (-np.arange(4) / 4)
    expected = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angles)[None, :, None]
    np.testing.assert_allclose(turned[..., :4], expected.real, atol=1e-5)
    np.testing.assert_allclose(turned[..., 4:], expected.imag, atol=1e-5)


def test_kernels_start_at_the_scale_of_their_fan_in():
    kernel = Einsum("BTNH,NHD->BTD", {"N": 8, "H": 16, "D": 512}, rngs=nnx.Rngs(0), scale=0.5)
    assert float(kernel.kernel[...].std()) == pytest.approx(0.5 / np.sqrt(128), rel=0.02)


def test_parts_keep_the_dtype_they_are_given():
    x = normal(5, 1, 4, 16).astype(jnp.bfloat16)
    block = Block(BlockConfig(16, 1, 4, 2, 4, 24, qk_norm=True), rngs=nnx.Rngs(0))
    out, _ = block(x, still(1, 4), jnp.ones((1, 1, 4, 4), bool))
    assert out.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(block))} == {jnp.dtype("float32")}


def test_cross_entropy_counts_what_is_masked_in():
    logits, targets = normal(6, 3, 4, 7), jax.random.randint(jax.random.key(7), (3, 4), 0, 7)
    mask = jnp.arange(12).reshape(3, 4) % 3 == 0
    loss, accuracy = cross_entropy(logits, targets, mask)
    nll = -jax.nn.log_softmax(logits)[jnp.arange(3)[:, None], jnp.arange(4), targets]
    assert loss == pytest.approx(float(nll[mask].mean()), abs=1e-5)
    assert accuracy == pytest.approx(float((logits.argmax(-1) == targets)[mask].mean()))
    assert cross_entropy(logits, targets, jnp.zeros_like(mask))[0] == 0
    wide = cross_entropy((1e4 * logits).astype(jnp.bfloat16), targets, mask)[0]
    assert wide.dtype == jnp.float32 and jnp.isfinite(wide)


def test_reconstruction_weighs_its_three_terms():
    error = normal(8, 50)

    def weigh(l1, l2, charbonnier):
        return float(reconstruction(error, l1=l1, l2=l2, charbonnier=charbonnier))

    absolute, square, smooth = weigh(1.0, 0.0, 0.0), weigh(0.0, 1.0, 0.0), weigh(0.0, 0.0, 1.0)
    assert absolute == pytest.approx(float(jnp.abs(error).mean()), rel=1e-5)
    assert square == pytest.approx(float((error**2).mean()), rel=1e-5)
    assert smooth == pytest.approx(absolute, abs=1e-3)
    assert weigh(2.0, 3.0, 1.0) == pytest.approx(2 * absolute + 3 * square + smooth, rel=1e-5)


def mesh():
    kinds = (AxisType.Auto,) * 3
    return jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=kinds)


def test_constrain_does_nothing_without_a_mesh_or_rules():
    x = normal(9, 4, 2, 16)
    assert constrain(x, "BTD") is x
    with use_rules(RULES):
        assert constrain(x, "BTD") is x
    with jax.set_mesh(mesh()):
        assert constrain(x, "BTD") is x


def test_constrain_places_and_keeps_the_numbers():
    x = normal(9, 4, 2, 16)
    with jax.set_mesh(mesh()), use_rules(RULES):
        y = jax.jit(lambda x: constrain(2 * x, "BTD"))(x)
    assert y.sharding.shard_shape(y.shape) == (1, 2, 16)
    np.testing.assert_array_equal(y, 2 * x)


def test_a_sharded_lookup_is_the_lookup(capfd):
    embed = Embed(32, 16, rngs=nnx.Rngs(0))
    ids = jax.random.randint(jax.random.key(1), (4, 6), 0, 32)
    graphdef, state = nnx.split(embed)
    expected = embed.table[...][ids]
    with jax.set_mesh(mesh()), use_rules(RULES):
        placed = jax.tree.map(lambda t: jax.device_put(t, jax.P("tensor", "fsdp")), state)
        found = jax.jit(lambda s, i: constrain(nnx.merge(graphdef, s)(i), "BTD"))(
            placed, jax.device_put(ids, jax.P(("data", "fsdp")))
        )
    np.testing.assert_array_equal(found, expected)
    assert "rematerialization" not in capfd.readouterr().err


def test_a_sharded_lookup_has_the_gradient_of_the_lookup():
    embed = Embed(32, 16, rngs=nnx.Rngs(0))
    ids = jax.random.randint(jax.random.key(1), (8, 6), 0, 5)  # most rows more than once
    graphdef, state = nnx.split(embed)
    loss = lambda s, i: jnp.sin(nnx.merge(graphdef, s)(i)).sum()  # noqa: E731
    expected = jax.grad(loss)(state, ids)
    with jax.set_mesh(mesh()), use_rules(RULES):
        placed = jax.tree.map(lambda t: jax.device_put(t, jax.P("tensor", "fsdp")), state)
        step = jax.jit(jax.grad(loss))
        rows = jax.device_put(ids, jax.P(("data", "fsdp")))
        found = step(placed, rows)
        text = step.lower(placed, rows).compile().as_text()
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
        assert one.sharding.shard_shape(one.shape) == (32 // 2, 16 // 2)
    # what goes round is the gradient's pieces, and the ids do not
    kinds = {c.kind for c in work(text, 8).collectives}
    assert "reduce-scatter" in kinds and "all-to-all" not in kinds


def test_a_product_is_einsums_and_its_kernel_is_not_turned_round():
    """Letters are summed in the kernel's order: XLA copied the kernel of an attention's output."""
    rng = np.random.default_rng(0)
    x, kernel = (jnp.array(rng.normal(size=s), jnp.float32) for s in ((2, 1, 3, 4), (3, 4, 5)))
    run = jax.jit(lambda x, kernel: contract("BTNH,NHD->BTD", x, kernel))
    np.testing.assert_allclose(run(x, kernel), jnp.einsum("BTNH,NHD->BTD", x, kernel), atol=1e-5)
    assert "transpose" not in str(jax.make_jaxpr(run)(x, kernel))
    shared = jnp.array(rng.normal(size=(4, 3, 5)), jnp.float32)  # a letter that both keep
    found = contract("BTQD,DQV->BTQV", x, shared)
    np.testing.assert_allclose(found, jnp.einsum("BTQD,DQV->BTQV", x, shared), atol=1e-5)
