"""Policies against their definitions, worked out anew in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sampling.policy import Policy, choose, kth_largest, truncate

LOGITS = np.random.default_rng(0).normal(0, 2, (5, 12)).astype(np.float32)


def kept(policy, logits=LOGITS):
    return np.isfinite(np.asarray(truncate(jnp.array(logits), policy)))


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("k", [1, 4, 12, 50])
def test_top_k_keeps_the_k_best(k):
    rank = np.argsort(np.argsort(-LOGITS, -1), -1)
    np.testing.assert_array_equal(kept(Policy(1.0, top_k=k)), rank < k)


@pytest.mark.parametrize("k", [1, 2, 17, 200])
def test_the_kth_largest_is_that_of_a_sort(k):
    rng = np.random.default_rng(1)
    rows = np.stack([
        rng.normal(0, 5, 200), rng.integers(-3, 3, 200), -np.abs(rng.normal(0, 1e-30, 200)),
        np.where(rng.random(200) < 0.5, -np.inf, rng.normal(size=200)),
        np.where(rng.random(200) < 0.5, 0.0, -0.0),
    ]).astype(np.float32)  # fmt: skip
    found = np.asarray(jax.jit(kth_largest, static_argnums=1)(jnp.array(rows), k))
    np.testing.assert_array_equal(found[:, 0], -np.sort(-rows, axis=-1)[:, k - 1])


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_top_p_keeps_the_fewest_that_reach_p(p):
    for row, keep in zip(softmax(LOGITS), kept(Policy(1.0, top_p=p)), strict=True):
        order = np.argsort(-row)
        count = int(np.searchsorted(np.cumsum(row[order]), p)) + 1
        assert set(np.nonzero(keep)[0]) == set(order[:count])


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_min_p_keeps_what_is_no_less_than_a_share_of_the_best(share):
    row = softmax(LOGITS)
    np.testing.assert_array_equal(
        kept(Policy(1.0, min_p=share)), row >= row.max(-1, keepdims=True) * share * (1 - 1e-6)
    )


@pytest.mark.parametrize(
    "policy",
    [
        Policy(1.0, top_k=1),
        Policy(1.0, top_p=1e-6),
        Policy(1.0, min_p=1.0),
        Policy(2.0, 3, 0.5, 0.5),
    ],
    ids=str,
)
def test_the_best_is_always_left(policy):
    assert kept(policy)[np.arange(5), LOGITS.argmax(-1)].all()


@pytest.mark.parametrize(
    "fields",
    [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"min_p": 1.5},
     {"min_p": -0.1}],
    ids=str,
)  # fmt: skip
def test_a_policy_that_cuts_everything_off_is_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        Policy(**fields)


def test_what_is_masked_is_never_chosen():
    masked = np.where(np.arange(12) % 4 == 1, LOGITS, -np.inf)
    for policy in (Policy(), Policy(3.0), Policy(3.0, 10, 0.99, 0.001)):
        keys = jax.random.split(jax.random.key(1), 300)
        made = jax.vmap(lambda key, policy=policy: choose(key, jnp.array(masked), policy))(keys)
        assert set(np.unique(made)) <= {1, 5, 9}


def test_draws_follow_the_tempered_distribution():
    keys = jax.random.split(jax.random.key(2), 20000)
    made = jax.vmap(lambda key: choose(key, jnp.array(LOGITS[0]), Policy(2.0)))(keys)
    found = np.bincount(np.asarray(made), minlength=12) / 20000
    np.testing.assert_allclose(found, softmax(LOGITS[0] / 2.0), atol=0.015)


def test_an_ordered_greedy_choice_is_the_median():
    logits = jnp.log(jnp.array([[0.3, 0.05, 0.3, 0.35], [0.02, 0.96, 0.01, 0.01], [0, 0, 0, 1.0]]))
    policy = Policy(ordered=True)
    assert choose(jax.random.key(0), logits, policy).tolist() == [2, 1, 3]
    assert choose(jax.random.key(0), logits, Policy()).tolist() == [3, 1, 3]
