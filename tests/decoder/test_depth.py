"""The depth head: nothing comes from later codes or other positions, one after another is all at
once, and it learns what codes have to do with each other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from decoder.depth import Depth
from decoder.dropping import drop
from decoder.model import Decoder
from decoder.task import DecoderTask
from sampling.guidance import combine, doubled, halves
from sampling.picking import Pick
from sampling.policy import Policy
from sampling.printing import Press
from tests.decoder.learning import fitted, printer
from tests.decoder.pages import DEPTH, batch, config, given
from tests.tokenizer.menu import QUICK

SMALL = (2, 2)
DEEP = config(objective="masked", head="depth", depth_blocks=DEPTH)
TRAINED = {"dropout": 0.0, "remat": "none"}


def test_later_codes_and_other_positions_have_no_gradient():
    Q, V = 5, 15
    sizes = {"D": 8, "Q": Q, "V": V}
    depth = Depth(DEPTH, sizes, trained=TRAINED, rngs=nnx.Rngs(0))
    codes = jnp.arange(3 * Q).reshape(1, 3, Q)  # each its own row of the tables
    graphdef, state = nnx.split(depth)
    features = jax.random.normal(jax.random.key(0), (1, 3, 8))

    def said(params, features):
        return nnx.merge(graphdef, params)(features, codes)[0, ..., 3]

    by_both = jax.jit(jax.jacrev(said, argnums=(0, 1)), compiler_options=QUICK)
    by_params, by_features = by_both(nnx.to_pure_dict(state), features)
    tables = jnp.abs(by_params["codes_in"]["kernel"]).sum(-1)  # of (position, depth) by (Q, V)
    for at in range(3):
        of_codes = tables[at, :, jnp.arange(Q), codes[0]] > 0  # (position, its code) by depth
        wanted = np.zeros((3, Q, Q), bool)
        wanted[at] = np.triu(np.ones((Q, Q), bool), 1)
        np.testing.assert_array_equal(of_codes, wanted)
    of_features = jnp.abs(by_features[:, :, 0]).sum(-1) > 0  # (position, depth) by position
    np.testing.assert_array_equal(of_features, np.eye(3, dtype=bool)[:, None].repeat(Q, 1))


@pytest.mark.parametrize("ordered", [False, True], ids=["plain", "ordered"])
def test_one_after_another_is_all_at_once(ordered):
    """What the codes were picked from is what the forward says of them, code by code."""
    model = Decoder(dataclasses.replace(DEEP, ordered=ordered), rngs=nnx.Rngs(1))
    data = batch(2, grid=SMALL)
    told, masked = given(data), jnp.ones((2, *SMALL), bool)
    policy = Policy(30.0 if ordered else 1.0)  # ordered logits are steep

    def both(codes, keys):
        chosen, logits = model.write(codes, masked, told, Pick(keys, policy))
        other = chosen.at[..., 0].set(3 - chosen[..., 0])
        return chosen, logits, model(chosen, masked, told), model(other, masked, told)

    rows = jnp.array(data["codes"], jnp.int32), jax.random.split(jax.random.key(1), 2)
    chosen, *logits = map(np.asarray, jax.jit(both, compiler_options=QUICK)(*rows))
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-4)
    assert (chosen != logits[0].argmax(-1)).any()  # drawn, each depth by itself
    moved = np.abs(logits[2] - logits[0]).max(axis=(0, 1, 2, 4))
    assert moved[0] < 1e-4 < moved[1:].min()


def test_told_and_untold_go_on_with_the_same_codes():
    task = DecoderTask(DEEP, drop_blueprint=0.1, drop_glyphs=0.1)
    model, data = task.init(nnx.Rngs(2)), batch(2, grid=SMALL)
    told = given(data)
    nothing = drop(told, blueprint=jnp.ones(2, bool), glyphs=jnp.ones(2, bool))
    masked = jnp.ones((2, *SMALL), bool)
    keys, codes = jax.random.split(jax.random.key(0), 2), jnp.zeros((2, *SMALL, 6), jnp.int32)
    made = printer(task, model, Press(guidance=-2.0))(codes, masked, told, keys)
    both = doubled(dict(told), dict(nothing), 2.0)
    twice = lambda rows: doubled(rows, rows, 2.0)  # noqa: E731
    ask = jax.jit(lambda codes: model(codes, twice(masked), both), compiler_options=QUICK)
    logits = halves(ask(twice(made)))
    np.testing.assert_array_equal(made, combine(*logits, -2.0).argmax(-1))


def test_it_learns_what_codes_of_a_position_have_in_common():
    """Each position's codes are one drawn value six times over: told nothing of it, six heads side
    by side are left with ln 4 = 1.39 nats a code, and one after another with a sixth of that."""
    data = batch(2, grid=SMALL)

    def pages(key):
        value = jax.random.randint(key, (2, *SMALL, 1), 0, 4)
        return {**data, "codes": jnp.repeat(value, 6, axis=-1)}

    task = DecoderTask(DEEP, whole_mask=1.0)
    model, losses = fitted(task, pages, 100)
    assert losses[0] > 1.2 and np.mean(losses[-10:]) < 0.4
    keys, codes = jax.random.split(jax.random.key(3), 2), jnp.zeros((2, *SMALL, 6), jnp.int32)
    masked = jnp.ones((2, *SMALL), bool)
    made = printer(task, model, Press(Policy(1.0)))(codes, masked, given(data), keys)
    assert (made == made[..., :1]).mean() > 0.9 and len(jnp.unique(made)) > 2
