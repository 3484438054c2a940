"""The cached engine is the slow loop, row by row, on a toy whose every logit depends on all that
came before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from layers.attention import LayerCache, write
from sampling.engine import Engine, generate_slowly
from sampling.policy import Policy

VOCAB, CAPACITY = 16, 40
TABLE = jax.random.normal(jax.random.key(0), (2 * CAPACITY, VOCAB, VOCAB))


@jax.jit
def whole(ids):
    """The sum over all ids so far of a random vector that their place and value pick."""
    places = jnp.arange(ids.shape[1])
    return jnp.cumsum(TABLE[places, ids], axis=1)


def logits_of(ids):
    """The same of one shape for all lengths, which is compiled once: no id moves a logit before."""
    padded = np.zeros((len(ids), CAPACITY), np.int32)
    padded[:, : ids.shape[1]] = ids
    return np.asarray(whole(padded))[:, : ids.shape[1]]


@jax.jit
def step(ids, cache, at):
    """The same with the picked vectors kept in the cache."""
    places = at[:, None] + jnp.arange(ids.shape[1])
    (kept,) = cache
    keys = write(kept.keys, TABLE[places, ids][:, :, None], at)
    sums = jnp.cumsum(keys[:, 0], axis=1)
    logits = jnp.take_along_axis(sums, places[..., None], axis=1)
    return logits, (LayerCache(keys, kept.values),)


def empty_cache(rows):
    zeros = jnp.zeros((len(rows), 1, CAPACITY, VOCAB))
    return (LayerCache(zeros, zeros),)


class Walk:
    """Allows ids of the place's parity only, and finishes after `num_ids`."""

    def __init__(self, num_ids):
        self.left = num_ids
        self.taken = []

    @property
    def finished(self):
        return self.left == 0

    def allowed(self):
        return bytes(int(i % 2 == self.left % 2) for i in range(VOCAB))

    def advance(self, token):
        if not self.allowed()[token]:
            raise ValueError(f"{token} is not allowed here")
        self.left -= 1
        self.taken.append(token)


PROMPTS = [[3], [1, 2, 3, 4, 5, 6, 7], [9, 9], [4, 4, 8, 1]]
COUNTS = [12, 5, 0, 20]
KEYS = jax.random.split(jax.random.key(5), 4)


def fast(rows, policy):
    walks = [Walk(COUNTS[i]) for i in rows]
    keys = KEYS[jnp.array(rows)]
    return Engine(step, empty_cache, policy=policy).generate(
        [PROMPTS[i] for i in rows], walks, keys
    )


@pytest.mark.parametrize("policy", [Policy(), Policy(1.5), Policy(1.5, 5, 0.9, 0.01)], ids=str)
def test_fast_is_slow(policy):
    slow = [
        generate_slowly(logits_of, prompt, Walk(count), key, policy)
        for prompt, count, key in zip(PROMPTS, COUNTS, KEYS, strict=True)
    ]
    assert fast([0, 1, 2, 3], policy) == slow
    assert [len(row) for row in slow] == COUNTS


def test_a_row_knows_nothing_of_its_neighbours():
    together = fast([0, 1, 2, 3], Policy(1.5))
    for rows in ([3], [1, 0], [3, 3, 1], [0, 1, 2]):
        assert fast(rows, Policy(1.5)) == [together[i] for i in rows]


def test_another_key_draws_another_row():
    walks = [Walk(20), Walk(20)]
    one, two = Engine(step, empty_cache, policy=Policy(1.5)).generate([[3], [3]], walks, KEYS[:2])
    assert one != two


@pytest.mark.parametrize("length", [1, 33, CAPACITY - 1])
def test_the_cache_may_be_filled_to_its_last_place(length):
    prompt = [int(i) for i in np.arange(length) % VOCAB]
    engine = Engine(step, empty_cache)
    made = engine.generate([prompt], [Walk(CAPACITY - length)], KEYS[:1])
    slow = generate_slowly(logits_of, prompt, Walk(CAPACITY - length), KEYS[0], Policy())
    assert made == [slow]


def test_what_the_cache_cannot_hold_is_refused():
    engine = Engine(step, empty_cache)
    with pytest.raises(ValueError, match=f"prompt 1 has {CAPACITY + 1} ids .* {CAPACITY}"):
        engine.generate([[1], [1] * (CAPACITY + 1)], [Walk(1), Walk(1)], KEYS[:2])
    with pytest.raises(ValueError, match=f"row 1 .* {CAPACITY}"):
        engine.generate([[1], [1] * 30], [Walk(30), Walk(30)], KEYS[:2])
    with pytest.raises(ValueError, match="prompt 0 is empty"):
        engine.generate([[]], [Walk(1)], KEYS[:1])
    with pytest.raises(ValueError, match="2 prompts, 1 constraints and 2 keys"):
        engine.generate([[1], [1]], [Walk(1)], KEYS[:2])


def test_no_prompts_make_no_rows():
    assert Engine(step, empty_cache).generate([], [], KEYS[:0]) == []
