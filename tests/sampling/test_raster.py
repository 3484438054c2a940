"""Raster decoding is its slow loop, on a toy whose every logit depends on all codes before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sampling.parallel import at_once
from sampling.picking import Pick
from sampling.policy import Policy
from sampling.raster import decode_raster, decode_raster_slowly

SHAPE, V = (3, 4, 5, 2), 6
B, Y, X, Q = SHAPE
TABLE = 3 * jax.random.normal(jax.random.key(0), (Y * X, Q, V, Q, V))
CODES = jax.random.randint(jax.random.key(2), SHAPE, 0, V)
MASKED = jax.random.bernoulli(jax.random.key(3), 0.6, SHAPE[:3])
KEYS = jax.random.split(jax.random.key(4), B)


def moves(codes, at):
    """What the codes at a position add to all later logits."""
    return TABLE[at, jnp.arange(Q), codes].sum(axis=-3)


def logits_of(codes, masked):
    """At each position the sum over the codes before it of what their places and values pick."""
    flat = codes.reshape(-1, Y * X, Q)
    added = jnp.stack([moves(flat[:, t], t) for t in range(Y * X)], axis=1)
    before = jnp.cumsum(added, axis=1) - added
    return before.reshape(-1, Y, X, Q, V)


def step(at, before, total, pick):
    """The same with the sum kept."""
    total = total + jnp.where(at > 0, moves(before, jnp.maximum(at - 1, 0)), 0)
    return pick(total), total


def decode(codes=CODES, masked=MASKED, keys=KEYS, policy=Policy()):  # noqa: B008  # frozen
    start = jnp.zeros((len(codes), Q, V))
    return np.asarray(decode_raster(step, start, codes, masked, Pick(keys, policy)))


@pytest.mark.parametrize("policy", [Policy(), Policy(1.5), Policy(1.5, 4, 0.9, 0.01)], ids=str)
def test_fast_is_slow(policy):
    slow = decode_raster_slowly(at_once(logits_of), CODES, MASKED, Pick(KEYS, policy))
    made = decode(policy=policy)
    np.testing.assert_array_equal(made, slow)
    np.testing.assert_array_equal(made[~MASKED], CODES[~MASKED])


def test_masked_codes_are_never_read_and_known_ones_are():
    hidden = jnp.where(MASKED[..., None], (CODES + 1) % V, CODES)
    np.testing.assert_array_equal(decode(hidden), decode())
    first = tuple(int(i) for i in np.argwhere(~np.asarray(MASKED))[0])
    shown = CODES.at[first].set((CODES[first] + 1) % V)
    changed = (decode(shown) != decode())[first[0]].reshape(Y * X, Q).any(axis=-1)
    at = first[1] * X + first[2]
    assert changed[at] and changed[at + 1 :].any() and not changed[:at].any()


def test_nothing_masked_is_nothing_done():
    np.testing.assert_array_equal(decode(masked=jnp.zeros_like(MASKED)), CODES)


def test_a_row_follows_its_key_alone():
    made = decode(policy=Policy(1.0))
    for rows in ([2], [1, 0]):
        at = jnp.array(rows)
        alone = decode(CODES[at], MASKED[at], KEYS[at], Policy(1.0))
        np.testing.assert_array_equal(alone, made[at])
    other = decode(keys=jax.random.split(jax.random.key(9), B), policy=Policy(1.0))
    assert (other != made).any()
