"""Guessing ahead changes no code: it is the slow raster loop in fewer passes, whatever one
guesses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sampling.ahead import decode_ahead
from sampling.parallel import at_once
from sampling.picking import Pick
from sampling.policy import Policy
from sampling.raster import decode_raster_slowly
from tests.sampling.test_raster import CODES, KEYS, MASKED, TABLE, B, Q, V, X, Y, logits_of
from tests.tokenizer.menu import QUICK

T = X * Y
ADDED = TABLE[:, jnp.arange(Q), :]  # [T Q V Q V]


def look(at, before, added, pick):
    """The window's logits from what is kept of the places before it and written anew of its own."""
    places = at[:, None] + jnp.arange(before.shape[1])
    rows = jnp.arange(len(at))[:, None]
    earlier = jnp.maximum(places - 1, 0)
    moved = ADDED[earlier[..., None], jnp.arange(Q), before].sum(axis=-3)
    moved = jnp.where((places > 0)[..., None, None], moved, 0.0)
    added = added.at[rows, places].set(moved)
    seen = jnp.arange(T) <= places[..., None]
    return pick(jnp.einsum("bwt,btqv->bwqv", seen.astype(float), added)), added


@functools.partial(jax.jit, static_argnames=("window", "policy"), compiler_options=QUICK)
def decode(guess=CODES, masked=MASKED, keys=KEYS, *, window=4, policy=Policy(1.5)):  # noqa: B008
    start = jnp.zeros((len(guess), T, Q, V))
    return decode_ahead(look, start, guess, masked, Pick(keys, policy), window=window)


@functools.cache
def slowly(policy, whole=False):
    masked = jnp.ones_like(MASKED) if whole else MASKED
    return decode_raster_slowly(at_once(logits_of), CODES, masked, Pick(KEYS, policy))


@pytest.mark.parametrize("window", [1, 4, T, T + 9])
@pytest.mark.parametrize("policy", [Policy(), Policy(1.5, 4, 0.9, 0.01)], ids=["greedy", "drawn"])
def test_ahead_is_one_at_a_time(window, policy):
    made, passes = decode(window=window, policy=policy)
    np.testing.assert_array_equal(made, slowly(policy))
    np.testing.assert_array_equal(made[~MASKED], CODES[~MASKED])
    last = jnp.where(MASKED.reshape(B, T), jnp.arange(1, T + 1), 0).max(axis=1)
    assert (passes >= -(-last // window)).all() and (passes <= last).all()


def test_good_guesses_save_passes_and_bad_ones_cost_no_code():
    right = slowly(Policy(1.5), whole=True)
    made, passes = decode(right, jnp.ones_like(MASKED), window=8)
    np.testing.assert_array_equal(made, right)
    assert (passes == -(-T // 8)).all()
    wrong, more = decode((right + 1) % V, jnp.ones_like(MASKED), window=8)
    np.testing.assert_array_equal(wrong, right)
    assert (more > passes).all()
    one = right.at[0, 1, 0].set((right[0, 1, 0] + 1) % V)
    again, few = decode(one, jnp.ones_like(MASKED), window=T)
    np.testing.assert_array_equal(again, right)
    assert few[0] > 1 and (few[1:] == 1).all()


def test_nothing_masked_is_no_pass():
    made, passes = decode(masked=jnp.zeros_like(MASKED))
    np.testing.assert_array_equal(made, CODES)
    assert (passes == 0).all()


def test_a_row_follows_its_key_alone():
    made, passes = decode()
    for rows in ([2], [1, 0]):
        at = jnp.array(rows)
        alone, own = decode(CODES[at], MASKED[at], KEYS[at])
        np.testing.assert_array_equal(alone, made[at])
        np.testing.assert_array_equal(own, passes[at])
