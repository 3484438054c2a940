"""Parallel decoding: what is known stays, the surest positions come first, and rows are alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sampling.parallel import at_once, decode_masked
from sampling.picking import Pick
from sampling.policy import Policy

SHAPE, V = (3, 2, 5, 4), 6
BIAS = 2 * jax.random.normal(jax.random.key(0), (*SHAPE[1:], V))
MIX = jax.random.normal(jax.random.key(1), (V, V))
CODES = jax.random.randint(jax.random.key(2), SHAPE, 0, V)
MASKED = jax.random.bernoulli(jax.random.key(3), 0.6, SHAPE[:3])
KEYS = jax.random.split(jax.random.key(4), SHAPE[0])


def logits_of(codes, masked):
    """What is visible in a row moves every logit of it; what is masked is not looked at."""
    seen = jnp.where(masked[..., None, None], 0, jax.nn.one_hot(codes, V))
    return BIAS + (seen.mean(axis=(1, 2, 3)) @ MIX)[:, None, None, None]


def decode(codes=CODES, masked=MASKED, keys=KEYS, policy=Policy(), num_passes=1):  # noqa: B008
    pick = Pick(keys, policy)
    return np.asarray(decode_masked(at_once(logits_of), codes, masked, pick, num_passes=num_passes))


@pytest.mark.parametrize("num_passes", [1, 3, 20])
def test_known_codes_stay_and_masked_ones_are_never_read(num_passes):
    made = decode(num_passes=num_passes, policy=Policy(1.0))
    np.testing.assert_array_equal(made[~MASKED], CODES[~MASKED])
    other = jnp.where(MASKED[..., None], (CODES + 1) % V, CODES)
    np.testing.assert_array_equal(decode(other, num_passes=num_passes, policy=Policy(1.0)), made)
    nothing = jnp.zeros_like(MASKED)
    np.testing.assert_array_equal(decode(masked=nothing, num_passes=num_passes), CODES)


def test_one_greedy_pass_is_the_argmax():
    best = logits_of(CODES, MASKED).argmax(-1)
    np.testing.assert_array_equal(decode(), jnp.where(MASKED[..., None], best, CODES))


def test_a_row_follows_its_key_alone():
    options = {"num_passes": 4, "policy": Policy(1.0)}
    made = decode(**options)
    np.testing.assert_array_equal(decode(**options), made)
    for rows in ([2], [1, 0]):
        at = jnp.array(rows)
        np.testing.assert_array_equal(decode(CODES[at], MASKED[at], KEYS[at], **options), made[at])
    assert (decode(keys=jax.random.split(jax.random.key(9), 3), **options) != made).any()


def passes(num_passes, policy):
    """The mask that each pass sees, and the codes at the end."""
    seen = []

    def watched(codes, masked):
        seen.append(np.asarray(masked))
        return logits_of(codes, masked)

    with jax.disable_jit():
        made = decode_masked(
            at_once(watched), CODES, MASKED, Pick(KEYS, policy), num_passes=num_passes
        )
    return seen, np.asarray(made)


@pytest.mark.parametrize("num_passes", [2, 5, 9])
def test_the_schedule_is_a_cosine_and_only_uncovers(num_passes):
    seen, made = passes(num_passes, Policy(1.0))
    total = np.asarray(MASKED.sum(axis=(1, 2)))
    for i, masked in enumerate(seen):
        share = np.cos(0.5 * np.pi * i / num_passes)
        np.testing.assert_array_equal(masked.sum(axis=(1, 2)), np.floor(total * share + 1e-6))
    for before, after in itertools.pairwise(seen):
        assert (before | ~after).all()
    np.testing.assert_array_equal(
        jax.jit(lambda k: decode_masked(
            at_once(logits_of), CODES, MASKED, Pick(k, Policy(1.0)), num_passes=num_passes
        ))(KEYS), made,
    )  # fmt: skip


def test_the_surest_come_first():
    seen, _ = passes(2, Policy())
    best = jax.nn.log_softmax(logits_of(CODES, MASKED)).max(-1).sum(-1)
    for row, first, second in zip(np.asarray(best), *seen, strict=True):
        assert row[first & ~second].min() >= row[second].max()


def test_no_passes_are_refused():
    with pytest.raises(ValueError, match="num_passes 0"):
        decode(num_passes=0)
