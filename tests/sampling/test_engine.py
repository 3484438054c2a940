"""The cached engine is the slow loop, row by row, on a toy whose every logit depends on all that
came before."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from layers.attention import LayerCache, write
from sampling.batch import Alphabet, Request
from sampling.engine import Engine, generate_slowly
from sampling.policy import Policy
from tests.probes import Loose

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


PROBES = Loose({"step": step, "empty_cache": empty_cache})


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


class Turns:
    """The automaton of a walk: two states that follow one another."""

    def __init__(self, num_ids):
        self.allowed = np.array([1 + num_ids % 2, 2 - num_ids % 2])
        self.after = np.array([[1], [0]])


EVEN = np.arange(VOCAB) % 2 == 0
ALPHABET = Alphabet(np.stack([EVEN | True, EVEN, ~EVEN]), np.zeros(VOCAB, np.int32))
PROMPTS = [[3], [1, 2, 3, 4, 5, 6, 7], [9, 9], [4, 4, 8, 1]]
COUNTS = [12, 5, 0, 20]
KEYS = jax.random.split(jax.random.key(5), 4)
POLICIES = [Policy(), Policy(1.5), Policy(1.5, 5, 0.9, 0.01), Policy(ordered=True)]


def starts(counts):
    return [functools.partial(Walk, count) for count in counts]


def fast(rows, policy, *, drafted=False, **how):
    counts = [COUNTS[i] for i in rows]
    automata = [Turns(count) for count in counts] if drafted else None
    how |= {"alphabet": ALPHABET} if drafted else {}
    engine = Engine(PROBES, policy=policy, **how)
    keys = KEYS[jnp.array(rows)]
    return engine.generate([PROMPTS[i] for i in rows], starts(counts), keys, automata)


@functools.cache
def slow(policy):
    return [
        generate_slowly(logits_of, prompt, Walk(count), key, policy)
        for prompt, count, key in zip(PROMPTS, COUNTS, KEYS, strict=True)
    ]


@pytest.mark.parametrize("drafted", [False, True], ids=["blind", "drafted"])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_fast_is_slow(policy, drafted):
    assert fast([0, 1, 2, 3], policy, drafted=drafted) == slow(policy)
    assert [len(row) for row in slow(policy)] == COUNTS


@pytest.mark.parametrize("ahead", [1, 3, 40])
def test_how_far_ahead_it_writes_changes_no_id(ahead):
    for drafted in (False, True):
        assert fast([0, 1, 2, 3], Policy(1.5), drafted=drafted, ahead=ahead) == slow(Policy(1.5))


def test_the_host_is_asked_once_a_draft():
    rounds = []
    engine = Engine(PROBES, alphabet=ALPHABET, ahead=5)
    do = engine._programs.round
    counted = lambda *given: rounds.append(1) or do(*given)  # noqa: E731
    engine._programs = dataclasses.replace(engine._programs, round=counted)
    engine.generate([[3]], starts([20]), KEYS[:1], [Turns(20)])
    assert len(rounds) == 4  # five ids each, all of which the walk lets through
    rounds.clear()
    engine.generate([[3]], starts([20]), KEYS[:1])
    assert 4 < len(rounds) <= 20  # of a rule that nothing is known of at least one id each


def test_a_row_knows_nothing_of_its_neighbours():
    together = fast([0, 1, 2, 3], Policy(1.5))
    for rows in ([3], [1, 0], [3, 3, 1], [0, 1, 2]):
        assert fast(rows, Policy(1.5)) == [together[i] for i in rows]


def test_many_rows_take_turns_in_few_slots():
    rows = [i % 4 for i in range(23)]
    for num_slots in (1, 3, 8):
        made = fast(rows, Policy(1.5), drafted=True, num_slots=num_slots)
        assert made == [slow(Policy(1.5))[i] for i in rows]


def test_rows_come_as_they_are_done_and_are_asked_for_as_there_is_room():
    asked = []

    def requests():
        key = np.asarray(jax.random.key_data(KEYS[0]))
        for i in range(9):
            asked.append(i)
            count = 20 if i == 0 else 2
            yield Request([3], functools.partial(Walk, count), key, Turns(count))

    engine = Engine(PROBES, alphabet=ALPHABET, num_slots=2, ahead=2)
    stream = engine.stream(requests())
    first = next(stream)[0]
    assert first != 0
    assert len(asked) < 9
    order = [first, *(index for index, _ in stream)]
    assert sorted(order) == list(range(9))
    assert order[-1] == 0  # the long one


def test_requests_of_one_bucket_are_compiled_once():
    probes = Loose({"step": step, "empty_cache": empty_cache})

    def ask(prompts, seed):
        engine = Engine(probes, policy=Policy(1.5), alphabet=ALPHABET)
        keys = jax.random.split(jax.random.key(seed), len(prompts))
        counts = [4 + len(prompt) for prompt in prompts]
        return engine.generate(prompts, starts(counts), keys, list(map(Turns, counts)))

    ask([[1, 2], [3], [4, 5, 6]], 0)
    before = probes.traced
    assert before >= 3
    for seed in (1, 2):
        ask([[1], [2, 2, 2, 2], [7] * 9, [8, 1]], seed)  # three rows stand in four slots
    assert probes.traced == before


def test_another_key_draws_another_row():
    engine = Engine(PROBES, policy=Policy(1.5))
    one, two = engine.generate([[3], [3]], starts([20, 20]), KEYS[:2])
    assert one != two


@pytest.mark.parametrize("length", [1, 33, CAPACITY - 1])
def test_the_cache_may_be_filled_to_its_last_place(length):
    prompt = [int(i) for i in np.arange(length) % VOCAB]
    count = CAPACITY - length
    want = generate_slowly(logits_of, prompt, Walk(count), KEYS[0], Policy())
    for automata in (None, [Turns(count)]):
        engine = Engine(PROBES, alphabet=ALPHABET)
        assert engine.generate([prompt], starts([count]), KEYS[:1], automata) == [want]


def test_what_the_cache_cannot_hold_is_refused():
    engine = Engine(PROBES)
    with pytest.raises(ValueError, match=f"prompt 1 has {CAPACITY + 1} ids .* {CAPACITY}"):
        engine.generate([[1], [1] * (CAPACITY + 1)], starts([1, 1]), KEYS[:2])
    with pytest.raises(ValueError, match=f"row 1 .* {CAPACITY}"):
        engine.generate([[1], [1] * 30], starts([30, 30]), KEYS[:2])
    with pytest.raises(ValueError, match="prompt 0 is empty"):
        engine.generate([[]], starts([1]), KEYS[:1])
    with pytest.raises(ValueError, match="2 prompts, 1 constraints and 2 keys"):
        engine.generate([[1], [1]], starts([1]), KEYS[:2])
    with pytest.raises(ValueError, match="leaves ids out"):
        Alphabet(EVEN[None], np.zeros(VOCAB, np.int32))
    with pytest.raises(ValueError, match="num_slots 0"):
        Engine(PROBES, num_slots=0)


def test_no_prompts_make_no_rows():
    assert Engine(PROBES).generate([], [], KEYS[:0]) == []
