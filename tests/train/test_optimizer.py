"""Groups, and how a kernel's letters make it a matrix for Muon."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train.optimizer import OptimizerConfig, build, learning_rate

MATRICES = [
    ((16, 16), "DF", "D"), ((64, 64), "DF", "D"), ((64, 256), "DF", "D"), ((256, 64), "FD", "F"),
    ((64, 4, 16), "DNH", "D"), ((4, 16, 64), "NHD", "NH"), ((3, 64, 64), "LDF", "D"),
    ((3, 64, 4, 16), "LDNH", "D"),
]  # fmt: skip


def normal(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def one_update(config, grads, *, axes, summed, group=lambda path: "it"):
    params = jax.tree.map(jnp.ones_like, grads)
    configs = config if isinstance(config, dict) else {"it": config}
    tx = build(configs, group, params, axes=axes, summed=summed, num_steps=10)
    return tx.update(grads, tx.init(params), params)[0]


def muon_update(grad, axes, summed, **changes):
    config = OptimizerConfig("muon", 1.0, **changes)
    return one_update(config, {"k": grad}, axes={"k": axes}, summed={"k": summed})["k"]


@pytest.mark.parametrize(("shape", "axes", "summed"), MATRICES, ids=str)
def test_consistent_rms_is_the_same_for_every_matrix(shape, axes, summed):
    update = muon_update(normal(shape), axes, summed, consistent_rms=0.2)
    assert float(jnp.sqrt(jnp.mean(update**2))) == pytest.approx(0.2, rel=0.2)


def test_letters_make_the_matrix():
    flat = muon_update(normal((8, 12)), "DF", "D")
    heads = muon_update(normal((8, 12)).reshape(8, 3, 4), "DNH", "D")
    np.testing.assert_allclose(heads.reshape(8, 12), flat, atol=1e-5)
    back = muon_update(normal((8, 12)).T.reshape(3, 4, 8), "NHD", "NH")
    scale = np.sqrt(12 / 8)  # fan_out / fan_in, on the way in only
    np.testing.assert_allclose(back.reshape(12, 8).T * scale, flat, atol=1e-5)


def test_stacked_layers_are_a_batch():
    layers = normal((3, 8, 12))
    stacked = muon_update(layers, "LDF", "D")
    for one, grad in zip(stacked, layers, strict=True):
        np.testing.assert_allclose(one, muon_update(grad, "DF", "D"), atol=1e-5)


def test_vectors_of_a_muon_group_go_to_adam():
    grads = {"k": normal((8, 12)), "scale": normal((3, 12), 1)}
    letters = {"axes": {"k": "DF", "scale": "LD"}, "summed": {"k": "D", "scale": ""}}
    both = one_update(OptimizerConfig("muon", 0.1), grads, **letters)
    adam = optax.nadamw(0.1, 0.9, 0.95, weight_decay=0.0)
    wanted, _ = adam.update(grads["scale"], adam.init(grads["scale"]), grads["scale"])
    np.testing.assert_allclose(both["scale"], wanted, rtol=1e-5)


def test_groups_schedule_apart_and_frozen_stays():
    def group(path):
        return path[0]

    configs = {
        "a": OptimizerConfig("adamw", 1.0),
        "b": OptimizerConfig("adamw", 1.0, warmup_steps=4),
    }
    letters = {n: dict.fromkeys(("a", "b", "frozen"), "D") for n in ("axes", "summed")}
    grads = {name: normal((5,), seed) for seed, name in enumerate(("a", "b", "frozen"))}
    updates = one_update(configs, grads, group=group, **letters)
    assert jnp.all(updates["frozen"] == 0) and jnp.all(updates["b"] == 0)
    assert jnp.all(updates["a"] != 0)


@pytest.mark.parametrize("name", ["adamw", "muon", "adafactor"])
def test_clipping_sees_its_own_group_only(name):
    """Two steps, for the scale of one is forgotten."""
    params = {"a": jnp.ones((5, 3)), "b": jnp.ones((5, 3))}
    letters = {"axes": dict.fromkeys(params, "DF"), "summed": dict.fromkeys(params, "D")}

    @functools.partial(jax.jit, static_argnums=0)
    def second_update(clip, a, b):
        configs = {"a": OptimizerConfig(name, clip=clip), "b": OptimizerConfig(name)}
        tx = build(configs, lambda path: path[0], params, num_steps=9, **letters)
        first = {"a": normal((5, 3)), "b": normal((5, 3), 1)}
        state = tx.update(first, tx.init(params), params)[1]
        second = {"a": a * first["a"][::-1], "b": b * first["b"]}
        return tx.update(second, state, params)[0]["a"]

    calm = second_update(1.0, 1.0, 1.0)
    np.testing.assert_array_equal(second_update(1.0, 1.0, 1e6), calm)
    np.testing.assert_allclose(second_update(1.0, 1e3, 1.0), calm, rtol=1e-4)
    assert not np.allclose(second_update(0.0, 1e3, 1.0), calm, rtol=0.1)


@pytest.mark.parametrize("name", ["adamw", "muon", "adafactor"])
def test_only_matrices_decay_and_by_the_rate(name):
    letters = {
        "axes": {"kernel": "LDNH", "table": "VD", "scale": "LD", "bias": "QD"},
        "summed": {"kernel": "D", "table": "D", "scale": "", "bias": ""},
    }
    shapes = {"kernel": (2, 4, 3, 5), "table": (6, 4), "scale": (2, 4), "bias": (3, 4)}
    zeros = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    updates = one_update(OptimizerConfig(name, 0.5, weight_decay=0.1), zeros, **letters)
    for part, update in updates.items():
        wanted = -0.05 if part in ("kernel", "table") else 0.0  # of parameters that are one
        np.testing.assert_allclose(update, wanted, rtol=1e-6, err_msg=part)


def test_adafactor_is_its_equations():
    """Shazeer & Stern 2018, algorithm 4, at the first step, where the decay of moments is 0."""
    grad = normal((8, 12))
    square = jnp.square(grad) + 1e-30
    rows, columns = square.mean(axis=1), square.mean(axis=0)
    scaled = grad / jnp.sqrt(rows[:, None] * columns[None] / square.mean())
    clipped = scaled / jnp.maximum(1.0, jnp.sqrt(jnp.mean(scaled**2)))

    def update(shape=(8, 12), letters="DF", **changes):
        config = OptimizerConfig("adafactor", 0.1, b1=0.0, factor_from=8, **changes)
        leaf = {"k": grad.reshape(shape)}
        return one_update(config, leaf, axes={"k": letters}, summed={"k": "D"})["k"]

    np.testing.assert_allclose(update(), -0.1 * clipped, rtol=1e-5)
    np.testing.assert_allclose(update((1, 8, 12), "LDF")[0], -0.1 * clipped, rtol=1e-5)
    with pytest.raises(ValueError, match=r"average k \(12, 8, 1\) over its layers; raise"):
        update((12, 8, 1), "LDF")


def test_a_frozen_group_has_no_moments():
    params = {"frozen": jnp.ones((3, 4)), "a": jnp.ones((5, 4))}
    letters = {"axes": dict.fromkeys(params, "DF"), "summed": dict.fromkeys(params, "D")}
    for name in ("adamw", "muon", "adafactor"):
        tx = build(
            {"a": OptimizerConfig(name)}, lambda path: path[0], params, num_steps=9, **letters
        )
        kept = [leaf.shape for leaf in jax.tree.leaves(tx.init(params))]
        assert (5, 4) in kept and (3, 4) not in kept, name


def test_wsd_is_stable_until_its_share_is_left():
    config = OptimizerConfig(
        learning_rate=2.0, schedule="wsd", warmup_steps=4, final_fraction=0.1, decay_share=0.25
    )
    rate = learning_rate(config, 40)
    values = [float(rate(step)) for step in (0, 2, 4, 17, 30, 35, 40)]
    assert values == pytest.approx([0.0, 1.0, 2.0, 2.0, 2.0, 1.1, 0.2])
    with pytest.raises(ValueError, match=r"decay_share 0.25 after 4 steps .* into 4 steps"):
        learning_rate(config, 4)
    with pytest.raises(ValueError, match=r"decay_share 0\.0 after"):
        learning_rate(OptimizerConfig(schedule="wsd", decay_share=0.0), 5)


def test_schedules_warm_up_and_end_where_they_say():
    for schedule, end in [("constant", 2.0), ("linear", 0.2), ("cosine", 0.2)]:
        rate = learning_rate(
            OptimizerConfig(
                learning_rate=2.0, schedule=schedule, warmup_steps=4, final_fraction=0.1
            ),
            20,
        )
        values = [float(rate(step)) for step in (0, 2, 4, 20)]
        assert values == pytest.approx([0.0, 1.0, 2.0, end]), schedule


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            OptimizerConfig("lion"),
            "'lion' is not known; there are: adamw, muon, adafactor",
        ),
        (OptimizerConfig(schedule="step"), "schedule 'step' is not known"),
        ({"other": OptimizerConfig()}, "no optimizer for group it"),
    ],
)
def test_bad_requests_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        one_update(config, {"k": normal((2, 2))}, axes={"k": "DF"}, summed={"k": "D"})
