"""What is told and to whom: locked regions, conditions left out, guidance, dropout by key."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from blueprint.schema import Blueprint, Box, Shape, Text
from decoder.conditioning import KINDS, REGION_FEATURES, ConditioningConfig, condition
from decoder.dropping import drop
from decoder.model import Decoder
from decoder.sight import Order, held
from decoder.task import DecoderTask
from sampling.in_order import ranks
from sampling.printing import Press
from tests.decoder.learning import printer
from tests.decoder.pages import BLOCKS, GRID, batch, config, given
from tests.tokenizer.menu import QUICK

LOCKED = ConditioningConfig(max_characters=8, lock_regions=True)
PAGE = Blueprint(
    64, 64, "#fff",
    (
        Shape("rectangle", Box(0, 0, 1000, 500), "#f00"),
        Text("title", ("Hi",), Box(130, 60, 500, 260), size_milli=250),
        Text("title", ("no", "x"), Box(300, 500, 600, 500), size_milli=200),
    ),
)  # fmt: skip


def told():
    arrays = {name: jnp.array(array)[None] for name, array in condition(PAGE, LOCKED).items()}
    return {**arrays, "glyph_codes": jnp.zeros((1, 8, 8, 6), jnp.int32)}


def test_a_box_holds_the_codes_whose_regions_know_of_it():
    arrays = told()
    slots = arrays["regions"][0, ..., 3 : 3 + 3 * REGION_FEATURES].reshape(64, 3, REGION_FEATURES)
    known = (slots[..., KINDS.index("text")] > 0).any(axis=1)
    there = arrays["letters"][0] > 0
    inside = held(arrays["letter_boxes"], (8, 8))[0]
    np.testing.assert_array_equal((inside & there).any(axis=1), known)
    assert arrays["letter_texts"][0].tolist() == [1, 1, 2, 2, 2, 0, 0, 0]
    assert 0 < known.sum() < 64


@pytest.mark.parametrize("objective", ["masked", "causal", "random"])
def test_a_letter_reaches_the_codes_in_its_box_and_no_other(objective):
    blocks = dataclasses.replace(BLOCKS, num_layers=1)
    shape = dataclasses.replace(config(objective=objective, blocks=blocks), conditioning=LOCKED)
    model, arrays = Decoder(shape, rngs=nnx.Rngs(0)), told()
    codes, masked = jnp.zeros((1, 8, 8, 6), jnp.int32), jnp.ones((1, 8, 8), bool)

    def logits(model, styles):
        out = model(codes, masked, {**arrays, "letter_styles": styles})
        return out.reshape(64, -1)[:, 5]

    def reach(model):
        jacobian = jax.jacrev(lambda styles: logits(model, styles))
        found = jax.jit(jacobian, compiler_options=QUICK)(arrays["letter_styles"])
        return jnp.abs(found[:, 0]).sum(-1) > 0

    inside = held(arrays["letter_boxes"], (8, 8))[0] & (arrays["letters"][0] > 0)
    np.testing.assert_array_equal(reach(model), inside)
    assert not inside.any(axis=1).all()  # some codes look at no letter at all
    free = dataclasses.replace(shape, conditioning=ConditioningConfig(max_characters=8))
    assert reach(Decoder(free, rngs=nnx.Rngs(0)))[:, :5].all()


def test_what_is_left_out_says_nothing():
    """Two pages without blueprint and glyphs are one; and without either they differ."""
    model, data = Decoder(config(objective="masked"), rngs=nnx.Rngs(0)), batch(2)
    codes, masked = jnp.zeros((2, *GRID, 6), jnp.int32), jnp.ones((2, *GRID), bool)
    ask = jax.jit(lambda told: model(codes, masked, told), compiler_options=QUICK)
    for blueprint, glyphs, alike in (
        (True, True, True),
        (True, False, False),
        (False, True, False),
    ):
        gone = {"blueprint": jnp.full(2, blueprint), "glyphs": jnp.full(2, glyphs)}
        one, two = ask(drop(given(data), **gone))
        assert bool((one == two).all()) == alike


def test_rows_are_left_out_by_key_at_their_rates():
    """At a rate of 1 the loss is that of pages told nothing; what is dropped follows the key."""
    model, data, key = Decoder(config(), rngs=nnx.Rngs(0)), batch(8), jax.random.key(3)
    task = DecoderTask(config(), drop_blueprint=1.0)
    all_rows, none = jnp.ones(8, bool), jnp.zeros(8, bool)
    bare = {**drop(given(data), blueprint=all_rows, glyphs=none), "codes": data["codes"]}
    plain = DecoderTask(config())
    assert task.loss(model, data, key)[0] == plain.loss(model, bare, key)[0]
    some = DecoderTask(config(), drop_blueprint=0.3, drop_glyphs=0.6)
    wide = {"letters": jnp.ones((4000, 1), jnp.int32), "glyphs": jnp.ones((4000, 1), jnp.int32)}
    rows = some._told(wide, key, 4000)
    assert abs(float((rows["letters"] == 0).mean()) - 0.3) < 0.03
    assert abs(float((rows["glyphs"] == 0).mean()) - 0.6) < 0.03
    again, other = (some._told(wide, jax.random.key(k), 4000)["letters"] for k in (3, 4))
    assert (again == rows["letters"]).all() and (other != rows["letters"]).any()
    both = ((rows["letters"] == 0) & (rows["glyphs"] == 0)).mean()
    assert abs(float(both) - 0.18) < 0.03


@pytest.mark.parametrize("objective", ["masked", "causal", "random"])
def test_guidance_reaches_what_is_printed(objective):
    """Scale 1 prints what no guidance prints; another the greedy choice of the combined logits."""
    task = DecoderTask(config(objective=objective), drop_blueprint=0.1, drop_glyphs=0.1)
    model, data = task.init(nnx.Rngs(2)), batch(2)
    codes = jnp.array(data["codes"], jnp.int32)
    masked = jnp.zeros((2, *GRID), bool).at[:, 2, 3].set(True)
    keys, arrays = jax.random.split(jax.random.key(0), 2), given(data)

    def printed(press):
        return printer(task, model, press)(codes, masked, arrays, keys)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def logits(arrays):
        order = Order(ranks(jnp.zeros((2, masked[0].size)), masked))
        return model(codes, masked, arrays, order=order)[:, 2, 3]

    nothing = drop(arrays, blueprint=jnp.ones(2, bool), glyphs=jnp.ones(2, bool))
    told, untold = logits(arrays), logits(nothing)
    plain = printed(Press())
    np.testing.assert_array_equal(plain[:, 2, 3], told.argmax(-1))
    made = printed(Press(guidance=-2.0))
    np.testing.assert_array_equal(made[:, 2, 3], (untold - 2 * (told - untold)).argmax(-1))
    np.testing.assert_array_equal(made[~masked], codes[~masked])
    assert (made != plain).any()


@pytest.mark.parametrize("objective", ["masked", "causal", "random"])
def test_dropout_follows_the_key(objective):
    shape = config(objective=objective, dropout=0.3)
    model, data = Decoder(shape, rngs=nnx.Rngs(0)), batch(2)
    codes, masked = jnp.array(data["codes"], jnp.int32), jnp.ones((2, *GRID), bool)
    still = Decoder(dataclasses.replace(shape, dropout=0.0), rngs=nnx.Rngs(0))

    def ask(model):
        forward = lambda key: model(codes, masked, given(data), key=key)  # noqa: E731
        return jax.jit(forward, compiler_options=QUICK)

    noisy, quiet = ask(model), ask(still)
    one, two = jax.random.split(jax.random.key(0))
    first = np.asarray(noisy(one))
    np.testing.assert_array_equal(first, noisy(one))
    assert (first != noisy(two)).mean() > 0.9
    np.testing.assert_array_equal(noisy(None), quiet(None))
    np.testing.assert_array_equal(quiet(one), quiet(two))
