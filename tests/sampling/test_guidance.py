"""Guidance against its formula; at a scale of 1 it is not there."""

import jax
import jax.numpy as jnp
import numpy as np

from sampling.guidance import combine, doubled, guided_logits, guided_step

TOLD, UNTOLD = jax.random.normal(jax.random.key(0), (2, 3, 4, 7))


def test_the_combination_is_its_formula():
    expected = np.asarray(UNTOLD) + 2.5 * (np.asarray(TOLD) - np.asarray(UNTOLD))
    np.testing.assert_allclose(combine(TOLD, UNTOLD, 2.5), expected, rtol=1e-6)
    np.testing.assert_array_equal(combine(TOLD, UNTOLD, 0.0), UNTOLD)
    assert combine(TOLD, UNTOLD, 1.0) is TOLD
    half = combine(TOLD.astype(jnp.bfloat16), UNTOLD.astype(jnp.bfloat16), 3.0)
    assert half.dtype == jnp.float32


def test_a_scale_of_one_doubles_nothing():
    ask = lambda rows: rows  # noqa: E731
    assert guided_logits(ask, 1.0) is ask and guided_step(ask, 1.0) is ask
    assert doubled({"a": TOLD}, {"a": UNTOLD}, 1.0)["a"] is TOLD


def test_both_halves_are_asked_at_once():
    """The toy adds its rows to what each of the doubled batch was told; its state counts steps."""
    scale = 3.0
    given = doubled({"bias": TOLD}, {"bias": UNTOLD}, scale)
    asked = []

    def logits_of(rows):
        asked.append(rows.shape)
        return rows + given["bias"]

    rows = jnp.arange(84.0).reshape(3, 4, 7)
    wanted = combine(rows + TOLD, rows + UNTOLD, scale)
    np.testing.assert_allclose(guided_logits(logits_of, scale)(rows), wanted, rtol=1e-5)
    step = guided_step(lambda at, before, state: (logits_of(before) * at, state + 1), scale)
    logits, state = step(jnp.array(2), rows, jnp.zeros(6))
    np.testing.assert_allclose(logits, 2 * wanted, rtol=1e-5)
    assert asked == [(6, 4, 7)] * 2 and (state == 1).all()
