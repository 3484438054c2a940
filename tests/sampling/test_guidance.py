"""Guidance against its formula; at a scale of 1 it is not there."""

import jax
import jax.numpy as jnp
import numpy as np

from sampling.guidance import combine, doubled, halves, told_half
from sampling.picking import Pick
from sampling.policy import Policy

TOLD, UNTOLD = jax.random.normal(jax.random.key(0), (2, 3, 4, 7))


def test_the_combination_is_its_formula():
    expected = np.asarray(UNTOLD) + 2.5 * (np.asarray(TOLD) - np.asarray(UNTOLD))
    np.testing.assert_allclose(combine(TOLD, UNTOLD, 2.5), expected, rtol=1e-6)
    np.testing.assert_array_equal(combine(TOLD, UNTOLD, 0.0), UNTOLD)
    assert combine(TOLD, UNTOLD, 1.0) is TOLD
    half = combine(TOLD.astype(jnp.bfloat16), UNTOLD.astype(jnp.bfloat16), 3.0)
    assert half.dtype == jnp.float32


def test_a_scale_of_one_doubles_nothing():
    assert doubled({"a": TOLD}, {"a": UNTOLD}, 1.0)["a"] is TOLD
    assert told_half(TOLD, 1.0) is TOLD and Pick(jax.random.key(0)).combined(TOLD) is TOLD


def test_the_told_half_is_what_was_doubled():
    both = doubled({"a": TOLD}, {"a": UNTOLD}, 2.0)
    assert both["a"].shape == (6, 4, 7)
    np.testing.assert_array_equal(told_half(both, 2.0)["a"], TOLD)
    np.testing.assert_array_equal(halves(both)[1]["a"], UNTOLD)


def test_both_halves_get_one_choice_from_the_combined():
    """Greedy it is the best of the formula; drawn, what one draws from it without guidance."""
    keys, both = jax.random.split(jax.random.key(1), 3), doubled(TOLD, UNTOLD, 3.0)
    formula = combine(TOLD, UNTOLD, 3.0)
    for policy in (Policy(), Policy(1.0)):
        made = Pick(keys, policy, 3.0)(both)
        np.testing.assert_array_equal(made[::2], Pick(keys, policy)(formula))
        np.testing.assert_array_equal(made[1::2], made[::2])
    np.testing.assert_array_equal(Pick(keys, Policy(), 3.0)(both)[::2], formula.argmax(-1))
