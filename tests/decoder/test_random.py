"""The decoder of random order: nothing comes from later codes in that order, its cache is its
forward, and it learns pages by heart."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from decoder.certainty import certain
from decoder.model import Decoder
from decoder.sight import Order
from decoder.task import DecoderTask, draw_order
from sampling.certain import certain_first
from sampling.in_order import (
    Schedule,
    decode_in_order_slowly,
    priorities,
    ranks,
)
from sampling.picking import Pick
from sampling.policy import Policy
from sampling.printing import Press, num_passes, printing
from tests.decoder.learning import fitted, printer
from tests.decoder.pages import DEPTH, GRID, batch, config, given
from tests.tokenizer.menu import QUICK

T = GRID[0] * GRID[1]
RANDOM = config(objective="random")


def orders():
    """By name: positions in raster order, drawn, and drawn with five positions printed at once."""
    drawn = draw_order(jax.random.key(4), (1, T))
    return {
        "raster": None,
        "drawn": Order(drawn),
        "in groups": Order(drawn, drawn - drawn % 5),
    }


@pytest.mark.parametrize("name", ["raster", "drawn", "in groups"])
def test_what_comes_later_has_no_gradient(name):
    lock, order = name == "drawn", orders()[name]
    shape = dataclasses.replace(config(objective="random", lock=lock), num_codes=1, codebook_size=T)
    model, data = Decoder(shape, rngs=nnx.Rngs(0)), batch(1, lock=lock)
    codes = jnp.arange(T).reshape(1, *GRID, 1)  # each its own row of the table
    told = {**given(data), "glyph_codes": codes[:, ::-1]}
    graphdef, state = nnx.split(model)

    def logits(params):
        model = nnx.merge(graphdef, params)
        out = model(codes, jnp.ones((1, *GRID), bool), told, order=order)
        return out.reshape(T, -1)[:, 3]

    by_params = jax.jit(jax.jacrev(logits), compiler_options=QUICK)(nnx.to_pure_dict(state))
    of_codes = jnp.abs(by_params["codes_in"]["kernel"]).sum(-1)[:, 0] > 0
    rank = np.arange(T) if order is None else np.asarray(order.rank[0])
    seen = rank if order is None or order.num_seen is None else np.asarray(order.num_seen[0])
    np.testing.assert_array_equal(of_codes, rank[None, :] < seen[:, None])


@functools.cache
def case(name):
    """A task, a model and what two pages tell it."""
    lock, deep = (
        name == "locked",
        {"head": "depth", "depth_blocks": DEPTH} if name == "depth" else {},
    )
    task = DecoderTask(config(objective="random", lock=lock, **deep))
    model = task.init(nnx.Rngs(1))
    model.head.kernel[...] = model.head.kernel[...] * 30  # so that draws depend on small things
    return task, model, given(batch(2, lock=lock))


@pytest.mark.parametrize(("name", "passes"), [("open", 1), ("locked", 6), ("depth", 6)])
def test_printing_with_a_cache_is_printing_by_whole_forwards(name, passes):
    task, model, told = case(name)
    codes = jnp.array(batch(2)["codes"], jnp.int32)
    masked = jax.random.bernoulli(jax.random.key(0), 0.7, (2, *GRID))
    keys = jax.random.split(jax.random.key(5), 2)
    policy = Policy(1.0)
    fast = printer(task, model, Press(policy, num_passes=passes))
    made = fast(codes, masked, told, keys)
    whole = functools.partial(task.probes()["write_in_order"], model)
    write = jax.jit(lambda c, r, n, pick: whole(c, r, n, told, pick), compiler_options=QUICK)
    rank = ranks(priorities("random", keys, T), masked)
    slow = decode_in_order_slowly(write, codes, masked, Pick(keys, policy), Schedule(rank, passes))
    np.testing.assert_array_equal(made, slow)
    np.testing.assert_array_equal(made[~masked], codes[~masked])
    hidden = jnp.where(masked[..., None], 3 - codes, codes)  # of no matter where masked
    np.testing.assert_array_equal(fast(hidden, masked, told, keys), made)
    if name == "locked":
        there = {n: array[1:] for n, array in told.items()}
        np.testing.assert_array_equal(fast(codes[1:], masked[1:], there, keys[1:]), made[1:])


@pytest.mark.parametrize(("order", "passes"), [("blueprint", 5), ("strokes", 2)])
def test_certain_first_with_a_cache_is_whole_forwards(order, passes):
    task, model, told = case("open")
    codes = jnp.array(batch(2)["codes"], jnp.int32)
    masked = jnp.ones((2, *GRID), bool).at[0, :2, 1:].set(False)
    keys, policy = jax.random.split(jax.random.key(5), 2), Policy(1.0)
    made = printer(task, model, Press(policy, passes, order=order))(codes, masked, told, keys)
    whole = functools.partial(task.probes()["write_in_order"], model)
    write = jax.jit(lambda c, r, n, pick: whole(c, r, n, told, pick), compiler_options=QUICK)
    schedule = certain_first(order, certain(told), masked, passes)
    assert (schedule.num_certain > 0).all()
    slow = decode_in_order_slowly(write, codes, masked, Pick(keys, policy), schedule)
    np.testing.assert_array_equal(made, slow)


def test_passes_are_counted():
    data = batch(2)
    codes, told = jnp.array(data["codes"], jnp.int32), given(data)
    masked = jnp.ones((2, *GRID), bool).at[1].set(False)  # nothing of the second page
    keys = jax.random.split(jax.random.key(5), 2)

    def passes(objective, press):
        task = DecoderTask(config(objective=objective), drop_blueprint=0.1)
        probes = {n: functools.partial(f, None) for n, f in task.probes().items()}
        probes["unconditional"] = lambda told: told  # needs weights, and is not printed with
        loop = printing(probes, codes, masked, told, keys, press=press)
        first, second = num_passes(loop, press).tolist()
        assert second == 0
        return first

    for count in (1, 6, T + 5):
        press = Press(num_passes=count)
        assert passes("masked", press) == count
        assert passes("causal", press) == T
        assert passes("random", press) == min(count, T)
        groups = Press(num_passes=count, order="blueprint")
        assert passes("masked", groups) == passes("random", groups) <= min(count, T + 1)
    assert passes("causal", Press(guidance=2.0)) == 2 * T
    with pytest.raises(ValueError, match="window 0 is not at least 1"):
        Press(window=0)


def test_orders_are_drawn_alike():
    drawn = np.asarray(draw_order(jax.random.key(0), (2000, 5)))
    assert (np.sort(drawn, axis=1) == np.arange(5)).all()
    shares = (drawn[:, :, None] == np.arange(5)).mean(axis=0)
    assert np.abs(shares - 0.2).max() < 0.04


def test_it_learns_from_codes_before_and_after():
    """All codes of a page are one drawn value: known from one position, wherever it stands, the
    others are printed alike at once; and with none known, in as many passes as positions."""
    small = (3, 3)
    data = batch(4, grid=small)

    def pages(key):
        value = jax.random.randint(key, (4, 1, 1, 1), 0, 4)
        return {**data, "codes": jnp.broadcast_to(value, (4, *small, 6))}

    task = DecoderTask(RANDOM)
    model, losses = fitted(task, pages, 120, seed=1)  # of six seeds two misread a corner
    floor = np.log(4) / 9  # the first position of nine cannot be known
    assert losses[0] > 1.2 and np.mean(losses[-10:]) < floor + 0.15
    keys, value = jax.random.split(jax.random.key(0), 4), jnp.arange(4)[:, None, None, None]
    at_once = printer(task, model, Press())
    for corner in ((0, 0), (2, 2)):
        masked = jnp.ones((4, *small), bool).at[:, *corner].set(False)
        codes = jnp.where(masked[..., None], (value + 1) % 4, value) + jnp.zeros(6, jnp.int32)
        made = at_once(codes, masked, given(data), keys)
        assert (made == value).mean() > 0.95
    drawn = printer(task, model, Press(Policy(1.0), num_passes=9))
    made = drawn(codes, jnp.ones((4, *small), bool), given(data), keys)
    assert (made == jnp.median(made, axis=(1, 2, 3), keepdims=True)).mean() > 0.7
