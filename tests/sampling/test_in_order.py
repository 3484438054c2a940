"""Decoding in an order that is given is its slow loop, on a toy whose every logit depends on all
codes before."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sampling.certain import certain_first, dispersed, loop_in_groups
from sampling.in_order import (
    CERTAIN_FIRST,
    Schedule,
    decode_in_order,
    decode_in_order_slowly,
    largest_group,
    num_left,
    priorities,
    ranks,
)
from sampling.picking import Pick
from sampling.policy import Policy
from tests.tokenizer.menu import QUICK

SHAPE, V = (3, 4, 5, 2), 6
B, Y, X, Q = SHAPE
T = Y * X
TABLE = 3 * jax.random.normal(jax.random.key(0), (T, Q, V, Q, V))
BIAS = jax.random.normal(jax.random.key(1), (T, Q, V))
CODES = jax.random.randint(jax.random.key(2), SHAPE, 0, V)
MASKED = jax.random.bernoulli(jax.random.key(3), 0.6, SHAPE[:3]).at[0].set(True)
KEYS = jax.random.split(jax.random.key(4), B)


@functools.partial(jax.jit, static_argnames="order", compiler_options=QUICK)
def ranked(keys, masked, order="random"):
    return ranks(priorities(order, keys, T), masked)


RANK = ranked(KEYS, MASKED)


def moves(codes, places):
    """What each code adds to the logits of those that see it, by where it stands."""
    return TABLE[places[..., None], jnp.arange(Q), codes].sum(axis=-3)


def write(codes, rank, num_seen, pick):
    """At each position the sum over the codes it sees."""
    flat = codes.reshape(-1, T, Q)
    added = moves(flat, jnp.broadcast_to(jnp.arange(T), rank.shape))
    seen = rank[:, None, :] < num_seen[:, :, None]
    logits = BIAS + jnp.einsum("bts,bsqv->btqv", seen.astype(float), added)
    return pick(logits).reshape(codes.shape), logits


def advance(at, now, before, state, pick):
    """The same with the sum kept."""
    total, order = state
    steps, own = jnp.arange(before.shape[1]), jnp.arange(pick.keys.shape[1])
    places = lambda first, steps: jnp.take_along_axis(  # noqa: E731
        order, jnp.minimum(first[:, None] + steps, T - 1), axis=1
    )
    read = (at[:, None] + steps < now[:, None])[..., None, None]
    total = total * (at > 0)[:, None, None] if len(steps) == T else total  # read anew
    total = total + (moves(before, places(at, steps)) * read).sum(axis=1)
    return pick(BIAS[places(now, own)] + total[:, None]), (total, order)


def start(codes=CODES, masked=MASKED, rank=RANK):
    known = moves(codes.reshape(-1, T, Q), jnp.broadcast_to(jnp.arange(T), rank.shape))
    total = (known * ~masked.reshape(-1, T, 1, 1)).sum(axis=1)
    return total, jnp.argsort(rank, axis=1)


@functools.partial(jax.jit, static_argnames=("num_passes", "policy"), compiler_options=QUICK)
def decode(codes=CODES, masked=MASKED, keys=KEYS, rank=RANK, *, num_passes=4, policy=Policy()):  # noqa: B008
    rows = (codes, masked, Pick(keys, policy), Schedule(rank, num_passes))
    return decode_in_order(advance, start(codes, masked, rank), *rows)


@pytest.mark.parametrize("num_passes", [1, 4, T])
@pytest.mark.parametrize("policy", [Policy(), Policy(1.5, 4, 0.9)], ids=["greedy", "drawn"])
def test_fast_is_slow(num_passes, policy):
    whole = jax.jit(write, compiler_options=QUICK)
    rows = (CODES, MASKED, Pick(KEYS, policy), Schedule(RANK, num_passes))
    slow = decode_in_order_slowly(whole, *rows)
    made = decode(num_passes=num_passes, policy=policy)
    np.testing.assert_array_equal(made, slow)
    np.testing.assert_array_equal(made[~MASKED], CODES[~MASKED])


CERTAIN = jax.random.bernoulli(jax.random.key(6), 0.4, SHAPE[:3]).at[2].set(False)


@functools.partial(jax.jit, static_argnames=("order", "passes", "policy"), compiler_options=QUICK)
def by_blueprint(rows, order, passes, policy):
    """By the cached loop, by the one for masked decoders, and how many passes of each page."""
    codes, masked, keys, certain = rows
    schedule = certain_first(order, certain, masked, passes)
    pick = Pick(keys, policy)
    made = decode_in_order(
        advance, start(codes, masked, schedule.rank), codes, masked, pick, schedule
    )

    def whole(codes, hidden, pick):
        seen = jnp.broadcast_to((~hidden).reshape(-1, T).sum(axis=1)[:, None], schedule.rank.shape)
        return write(codes, schedule.rank, seen, pick)

    again = loop_in_groups(whole, codes, masked, pick, schedule).run()
    return made, again, schedule.passes(masked.sum(axis=(1, 2)))


@pytest.mark.parametrize("passes", [1, 2, 5, T + 1])
@pytest.mark.parametrize("order", CERTAIN_FIRST)
def test_certain_first_is_slow_too(order, passes):
    policy, rows = Policy(1.5, 4, 0.9), (CODES, MASKED, KEYS, CERTAIN)
    made, again, counted = by_blueprint(rows, order, passes, policy)
    schedule = certain_first(order, CERTAIN, MASKED, passes)
    slow = decode_in_order_slowly(
        jax.jit(write, compiler_options=QUICK), CODES, MASKED, Pick(KEYS, policy), schedule
    )
    np.testing.assert_array_equal(made, slow)
    np.testing.assert_array_equal(again, slow)
    at = jnp.array([1])
    alone, _, own = by_blueprint(tuple(array[at] for array in rows), order, passes, policy)
    np.testing.assert_array_equal(alone, made[at])
    later = np.asarray((MASKED & ~CERTAIN).sum(axis=(1, 2)))
    first = np.asarray((MASKED & CERTAIN).any(axis=(1, 2)))
    if passes > 1:
        np.testing.assert_array_equal(counted, first + -(-later // -(-T // (passes - 1))))
    assert (counted <= passes).all() and own[0] == counted[1]


def test_certain_positions_are_all_in_the_first_group_and_neighbours_in_different_ones():
    masked, certain = jnp.ones((1, 8, 8), bool), jnp.zeros((1, 8, 8), bool).at[:, :3].set(True)
    schedule = certain_first("blueprint", certain, masked, 5)
    rank = np.asarray(schedule.rank).reshape(8, 8)
    assert (np.sort(rank[:3].ravel()) == np.arange(24)).all() and schedule.num_certain[0] == 24
    order = dispersed((8, 8))
    assert (np.sort(order.ravel()) == np.arange(64)).all()
    places = np.argwhere(order < 16)  # two rows or columns apart
    apart = np.abs(places[:, None] - places[None]).max(axis=-1) + 9 * np.eye(16, dtype=int)
    assert apart.min() == 2
    assert len(np.unique(dispersed((5, 7)))) == 35
    with pytest.raises(ValueError, match="num_passes 1 leaves none for what is not certain"):
        Schedule(schedule.rank, 1, schedule.num_certain)


def test_masked_codes_are_never_read_and_known_ones_are_wherever_they_stand():
    hidden = jnp.where(MASKED[..., None], (CODES + 1) % V, CODES)
    np.testing.assert_array_equal(decode(hidden), decode())
    last = tuple(int(i) for i in np.argwhere(~np.asarray(MASKED))[-1])
    changed = decode(CODES.at[last].set((CODES[last] + 1) % V)) != decode()
    assert changed[last[0]].any(axis=-1).reshape(T)[: last[1] * X + last[2]].any()
    assert not jnp.delete(changed, last[0], axis=0).any()
    nothing = jnp.zeros_like(MASKED)
    rank = ranked(KEYS, nothing, "raster")
    np.testing.assert_array_equal(decode(masked=nothing, rank=rank), CODES)


def test_a_row_follows_its_key_alone():
    made = decode(policy=Policy(1.0))
    at = jnp.array([2, 1])
    alone = decode(CODES[at], MASKED[at], KEYS[at], RANK[at], policy=Policy(1.0))
    np.testing.assert_array_equal(alone, made[at])
    other = decode(keys=jax.random.split(jax.random.key(9), B), policy=Policy(1.0))
    assert (other != made).any()


def test_known_positions_come_first_and_the_rest_by_priority():
    by_place, hidden = np.asarray(ranked(KEYS, MASKED, "raster")), np.asarray(MASKED)
    for rank, masked in zip(by_place, hidden.reshape(B, T), strict=True):
        order = np.argsort(rank)
        known = int((~masked).sum())
        assert not masked[order[:known]].any() and (np.diff(order[known:]) > 0).all()
    assert (np.sort(RANK, axis=1) == np.arange(T)).all()
    assert (np.asarray(RANK)[0] != by_place[0]).mean() > 0.5
    drawn = np.asarray(ranked(jax.random.split(KEYS[0], 200), np.ones((200, 1, T), bool)))
    assert abs(drawn[:, 0].mean() - (T - 1) / 2) < 1.5
    with pytest.raises(ValueError, match="order 'spiral' is not known; there is: random, raster"):
        priorities("spiral", KEYS, T)
    with pytest.raises(ValueError, match="num_passes 0 is not at least 1"):
        Schedule(RANK, 0)


@pytest.mark.parametrize("num_passes", [1, 8, 256])
def test_the_schedule_is_a_cosine_that_prints_at_least_one(num_passes):
    totals = jnp.append(jnp.arange(257), 30000)  # of which no product overflows
    passes = jax.vmap(lambda i: num_left(totals, i, num_passes))
    left = np.asarray(jax.jit(passes, compiler_options=QUICK)(jnp.arange(num_passes + 1)))
    if num_passes == 8:
        for total in (256, 30000):
            cosine = total * np.cos(np.pi * np.arange(9) / 16)
            np.testing.assert_allclose(left[:, total if total == 256 else -1], cosine, atol=1.5)
    totals, left = totals[:-1], left[:, :-1]
    if num_passes == 256:
        np.testing.assert_array_equal(left[:, 256], 256 - np.arange(257))
    assert (left[0] == np.asarray(totals)).all() and (left[-1] == 0).all()
    groups = left[:-1] - left[1:]
    assert (groups >= (left[:-1] > 0)).all()
    assert 0 <= largest_group(256, num_passes) - groups.max() <= 1


def test_keys_of_positions_are_folded_one_by_one():
    data = jax.random.key_data
    both = Pick(KEYS).at(jnp.arange(2 * B).reshape(B, 2)).keys
    for i in range(B):
        for j in range(2):
            alone = jax.random.fold_in(KEYS[i], 2 * i + j)
            np.testing.assert_array_equal(data(both[i, j]), data(alone))
    deeper = Pick(both).at(5).keys
    np.testing.assert_array_equal(data(deeper[1, 0]), data(jax.random.fold_in(both[1, 0], 5)))
