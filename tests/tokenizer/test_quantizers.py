"""The contract every quantizer is held to, and the mathematics of each kind."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.tokenizer import menu
from tests.tokenizer.menu import COSINE, EMA, EUCLIDEAN, KINDS, parts, quantize, trained
from tokenizer.model import QuantizerConfig, make_quantizer
from tokenizer.quantizers import bits as bits_
from tokenizer.quantizers.bits import BitsConfig
from tokenizer.quantizers.codebook import CodebookConfig
from tokenizer.quantizers.contract import Quantizer
from tokenizer.quantizers.vq import rotated
from tokenizer.task import TokenizerTask

KEY = jax.random.key(7)


@pytest.fixture(params=KINDS)
def config(request):
    return KINDS[request.param]


def vectors(config, seed=0):
    width = make_width(config)
    return 1.5 * jax.random.normal(jax.random.key(seed), (4, 5, 8, width))


def make_width(config):
    return nnx.merge(*parts(config)).width


def all_codes(quantizer):
    V, Q = quantizer.codebook_size, quantizer.num_codes
    rng = np.random.default_rng(0)
    shifts = rng.integers(V, size=Q)
    return jnp.asarray((np.arange(160).reshape(4, 5, 8, 1) + shifts) % V, jnp.int32)


def test_codes_are_in_range_and_lookup_inverts(config):
    graphdef, params, extra = parts(config)
    quantizer = nnx.merge(graphdef, params, extra)
    assert isinstance(quantizer, Quantizer)
    out, after, again = quantize(config)(params, extra, vectors(config), KEY)
    assert out.codes.shape == (4, 5, 8, quantizer.num_codes) and out.codes.dtype == jnp.int32
    assert out.codes.min() >= 0 and out.codes.max() < quantizer.codebook_size
    np.testing.assert_allclose(again, out.values, atol=2e-6)
    jax.tree.map(np.testing.assert_array_equal, extra, after)
    if config.kind == "fsq" and config.name != "residual":
        assert jnp.abs(out.values).max() <= 1 + 1e-6


def test_training_moves_the_statistics_by_its_key_and_nothing_else(config):
    _, _, extra = parts(config)
    z = vectors(config)
    once, again = trained(config, z), trained(config, z)
    jax.tree.map(np.testing.assert_array_equal, once, again)
    if config.kind != "vq":
        assert extra == {} == once
        return
    other = trained(config, z, jax.random.key(8))
    for name, tree in {"no batch": extra, "another key": other}.items():
        same = jax.tree.map(np.array_equal, once, tree)
        assert not all(jax.tree.leaves(same)), name
    started = [x for x in jax.tree.leaves(once) if x.dtype == bool]
    assert len(started) == (1 if config.name == "vq" else config.num_codes) and all(started)


def test_every_code_survives_a_round_trip(config):
    """Not asked of residuals of tables and levels: a sum of values may have a shorter way."""
    if config.name == "residual" and config.kind != "lfq":
        return
    graphdef, params, extra = parts(config)
    quantizer = nnx.merge(graphdef, params, extra)
    codes = all_codes(quantizer)
    values = quantizer.lookup(codes)
    squashed = menu.bound(config) is jnp.tanh
    z = jnp.arctanh(values.clip(-0.999, 0.999)) if squashed else values
    np.testing.assert_array_equal(quantize(config)(params, extra, z, KEY)[0].codes, codes)


def test_gradient_passes_straight_through(config):
    """The gradient to z is that of `bound` alone: tanh' for levels, the tangent of the sphere for
    unit vectors, the identity otherwise. The rotation trick and IBQ have tests of their own."""
    if config.codebook.rotation or config.kind == "ibq":
        return
    graphdef, params, extra = parts(config)
    z = vectors(config, 1)
    w = jax.random.normal(jax.random.key(2), z.shape)

    @functools.partial(jax.jit, compiler_options=menu.QUICK)
    def passed(z):
        values = lambda z: nnx.merge(graphdef, params, extra).quantize(z).values  # noqa: E731
        return jax.vjp(values, z)[1](w)[0], jax.vjp(menu.bound(config), z)[1](w)[0]

    np.testing.assert_allclose(*passed(z), atol=2e-5)


def test_all_codes_are_used(config):
    """Statistics after one batch of 1,280 positions; every alphabet here has 8 to 120 codes."""
    _, params, extra = parts(config)
    run = quantize(config)
    extra = trained(config, vectors(config)) if config.kind == "vq" else extra
    outs = [run(params, extra, vectors(config, seed), KEY)[0] for seed in range(8)]
    codes = np.concatenate([out.codes for out in outs])
    for q in range(codes.shape[-1]):
        used = len(np.unique(codes[..., q]))
        assert used > nnx.merge(*parts(config)).codebook_size // 2, q


def test_usage_is_counted():
    config = dataclasses.replace(EMA, restart_below=0.0)
    named = QuantizerConfig("vq", num_codes=1, codebook=config)
    _, params, extra = parts(named)
    z = vectors(named)
    out, after, _ = quantize(named, training=True)(params, extra, z, KEY)
    share = np.bincount(np.ravel(out.codes), minlength=16) / out.codes.size
    np.testing.assert_allclose(after["share"], 0.8 / 16 + 0.2 * share, rtol=1e-5)
    assert out.scalars["restarted"] == 0


def test_ema_rows_are_the_averages_of_the_paper():
    """N and m of van den Oord et al. 2017, A.1, in float64, against our one-line form."""
    config = dataclasses.replace(EMA, restart_below=0.0)
    named = QuantizerConfig("vq", num_codes=1, codebook=config)
    _, params, extra = parts(named)
    extra = {**extra, "started": jnp.ones((), bool)}
    table = np.asarray(extra["mean"], np.float64)
    N, m = np.full(16, 1 / 16), table / 16
    for seed in range(6):
        z = vectors(named, seed)
        out, extra, _ = quantize(named, training=True)(params, extra, z, KEY)
        chosen = np.eye(16)[np.ravel(out.codes)]
        N = 0.8 * N + 0.2 * chosen.mean(axis=0)
        m = 0.8 * m + 0.2 * chosen.T @ np.asarray(z, np.float64).reshape(-1, 4) / len(chosen)
    np.testing.assert_allclose(extra["mean"], m / N[:, None], atol=1e-5)
    np.testing.assert_allclose(extra["share"], N, rtol=1e-5)


def test_the_start_finds_clusters_and_happens_once():
    """16 codes, 16 far clusters of 10 vectors: k-means leaves less than a fifth of the squared
    distance that the fresh table has (random first rows miss some clusters), and a
    second batch does not start again."""
    for codebook in (EUCLIDEAN, EMA):
        named = QuantizerConfig("vq", num_codes=1, codebook=codebook)
        _, params, extra = parts(named)
        centres = 5 * jax.random.normal(jax.random.key(3), (4, 4, 1, 1, 4))
        spread = 0.1 * jax.random.normal(jax.random.key(4), (4, 4, 5, 2, 4))
        z = (centres + spread).reshape(4, 5, 8, 4)
        fresh = quantize(named)(params, extra, z, KEY)[0].scalars["commitment"]
        run = quantize(named, training=True)
        out, extra, _ = run(params, extra, z, KEY)
        assert out.scalars["commitment"] < 0.2 * fresh
        assert len(np.unique(out.codes)) > 10
        again = run(params, extra, -3 * z, KEY)[0].scalars["commitment"]
        assert again > 4 * out.scalars["commitment"]


@pytest.mark.parametrize("codebook", [EUCLIDEAN, COSINE, EMA], ids=["gradient", "cosine", "ema"])
def test_dead_codes_are_revived(codebook):
    """All but two rows start where no vector is; within 20 batches 15 of 16 codes are in use, and
    without restarts two are."""
    kept = {}
    for below in (0.3, 0.0):
        config = dataclasses.replace(codebook, decay=0.8, restart_below=below)
        named = QuantizerConfig("vq", num_codes=1, codebook=config)
        _, params, extra = parts(named)
        away = jnp.full((16, 4), -50.0).at[:2].set(jnp.eye(2, 4) + 1)
        base = params.get("table", 0.0)
        name = "mean" if "mean" in extra else "shift"
        extra = {**extra, name: away - base, "started": jnp.ones((), bool)}
        for seed in range(20):
            z = 1 + np.abs(vectors(named, seed))
            key = jax.random.key(seed)
            out, extra, _ = quantize(named, training=True)(params, extra, z, key)
        kept[below] = len(np.unique(out.codes))
    assert kept[0.0] == 2 and kept[0.3] >= 15, kept


def test_rotation_keeps_the_angle_and_scales_by_the_lengths():
    """With g the gradient to z and w the one from above: g.z = w.e and |g| = |w| |e| / |z|, and for
    an e that points away from z it is finite."""
    z, e, w = jax.random.normal(jax.random.key(0), (3, 50, 6))
    e = e.at[0].set(-2 * z[0])

    @jax.jit
    def both(z, e, w):
        value, back = jax.vjp(lambda z: rotated(z, e), z)
        return value, back(w)[0]

    value, g = both(z, e, w)
    np.testing.assert_allclose(value, e, atol=1e-5)
    assert np.isfinite(g).all()
    g, z, e, w = (np.asarray(x)[1:] for x in (g, z, e, w))
    length = lambda x: np.linalg.norm(x, axis=-1)  # noqa: E731
    np.testing.assert_allclose((g * z).sum(-1), (w * e).sum(-1), atol=1e-4)
    np.testing.assert_allclose(length(g), length(w) * length(e) / length(z), rtol=1e-4)


def test_ibq_moves_every_code_and_vq_only_those_chosen():
    """The gradient is that of the literal formula (onehot + p - sg(p)) @ table."""
    rows = {}
    for name in ("ibq", "vq cosine"):
        config = dataclasses.replace(KINDS[name].codebook, temperature=0.25)
        named = dataclasses.replace(KINDS[name], codebook=config)
        graphdef, params, extra = parts(named)
        z = vectors(named)[:1, :1, :3]
        w = jax.random.normal(jax.random.key(2), z.shape)
        loss = lambda p, z: jnp.vdot(nnx.merge(graphdef, p, extra).quantize(z).values, w)  # noqa: B023, E731
        grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, z)
        rows[name] = int((jnp.abs(grads[0]["table"]).sum(axis=-1) > 0).sum())
        if name == "ibq":

            def literal(p, z):
                table = menu.unit(p["table"])
                soft = jax.nn.softmax(menu.unit(z) @ table.T / 0.25)
                hard = jax.nn.one_hot(soft.argmax(-1), 16)
                return jnp.vdot((hard + soft - jax.lax.stop_gradient(soft)) @ table, w)  # noqa: B023

            wanted = jax.jit(jax.grad(literal, argnums=(0, 1)))(params, z)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, wanted)
    assert rows == {"ibq": 16, "vq cosine": 0}


def test_entropies_of_bits_are_those_of_the_softmax_over_corners():
    """Against all 2^5 corners written out; independent bits bound the joint entropy from above."""
    logits = 2 * np.random.default_rng(0).normal(size=(3, 4, 4, 10)).astype(np.float32)
    logits[..., 1] = logits[..., 0]
    position, joint = 0.0, 0.0
    corners = 2.0 * ((np.arange(32)[:, None] >> np.arange(5)) & 1) - 1
    for group in np.split(logits, 2, axis=-1):
        p = np.exp(group @ corners.T / 2)
        p /= p.sum(axis=-1, keepdims=True)
        position += -(p * np.log(p)).sum(-1).mean() / 2
        mean = p.mean(axis=(0, 1, 2))
        joint += -(mean * np.log(mean)).sum() / 2
    names = ("position_entropy", "joint_entropy", "marginal_entropy")
    found = jax.jit(lambda x: [getattr(bits_, name)(x, 2) for name in names])(logits)
    np.testing.assert_allclose(found[:2], (position, joint), rtol=1e-4)
    assert found[2] > joint + 0.03
    codes = np.arange(2**10, dtype=np.int32).reshape(4, 16, 16, 1)
    again = jax.jit(lambda codes: bits_.pack(bits_.signs(codes, 10) > 0, 1))(codes)
    np.testing.assert_array_equal(again, codes)


def test_residual_stages_bring_the_values_nearer():
    """Of vectors in range, each further stage of bits or levels leaves at most 0.6 of the squared
    error."""
    z = jnp.tanh(0.3 * jax.random.normal(jax.random.key(0), (4, 5, 8, 4)))
    for part, bound in (("lfq", jnp.arctanh), ("fsq", jnp.arctanh), ("bsq", menu.unit)):
        errors = []
        for stages in (1, 2, 3):
            config = QuantizerConfig("residual", (5,) * 4, stages, part, bits=BitsConfig(4))
            quantizer = make_quantizer(config, rngs=nnx.Rngs(0))
            target = menu.unit(z) if part == "bsq" else z
            values = jax.jit(lambda z: quantizer.quantize(bound(z)).values)(z)  # noqa: B023
            errors.append(float(np.square(values - target).mean()))
        assert errors[1] < 0.6 * errors[0] and errors[2] < 0.6 * errors[1], (part, errors)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QuantizerConfig("vqgan"), "there are: fsq, vq, ibq, lfq, bsq, product, residual"),
        (lambda: QuantizerConfig("product", part="residual"), "quantizer.part 'residual'"),
        (lambda: QuantizerConfig("vq"), "num_codes is 48, but vq has one .* set it to 1"),
        (lambda: QuantizerConfig("lfq", num_codes=0), "num_codes 0 must be at least 1"),
        (lambda: QuantizerConfig("residual", part="vq"), "codebook.cosine .* set it False"),
        (
            lambda: QuantizerConfig("ibq", num_codes=1, codebook=EMA),
            "ibq needs learning gradient",
        ),
        (
            lambda: QuantizerConfig("vq", num_codes=1, codebook=CodebookConfig(entropy=0.1)),
            "codebook.entropy is ibq's alone",
        ),
        (lambda: CodebookConfig(learning="sgd"), "there are: gradient, ema"),
        (lambda: CodebookConfig(size=1), "at least 2 vectors"),
        (lambda: CodebookConfig(decay=1.0), "less than 1"),
        (lambda: CodebookConfig(temperature=0.0), "temperature 0.0 must be more than 0"),
        (lambda: BitsConfig(bits=30), "raise quantizer.num_codes"),
        (lambda: BitsConfig(temperature=-1.0), "must be more than 0"),
    ],
)
def test_what_does_not_go_together_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_codebooks_are_the_rest_and_have_letters():
    """A learnt table belongs to AdamW's group; nothing of a quantizer is `hidden`."""
    for config in KINDS.values():
        quantizer = make_quantizer(config, rngs=nnx.Rngs(0))
        for path, variable in nnx.to_flat_state(nnx.state(quantizer, nnx.Param)):
            names = ("quantizer", *map(str, path))
            assert TokenizerTask.group(None, names) == "rest"
            assert variable.get_metadata()["axes"] == "VZ"
            assert variable.get_metadata()["summed"] == "Z"
            assert math.prod(variable[...].shape) == 16 * 4
