"""Decoders of captions, and those whose codes stand on a line: what looks at what, and that the
cache is the forward."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from decoder.captions import sight_of_captions
from decoder.model import Decoder
from decoder.task import DecoderTask
from tests.decoder.pages import config, every_step
from tests.tokenizer.menu import QUICK

GRID, S = (2, 3), 4
CAPTIONS = config(caption_width=8, num_caption_tokens=S, rope_theta=10000.0)
TOLD = {
    "captions": jax.random.normal(jax.random.key(0), (2, S, 8)),
    "caption_tokens": jnp.array([4, 2]),
    "captioned": jnp.array([True, True]),
}
CODES = jax.random.randint(jax.random.key(1), (2, *GRID, 6), 0, 4)
HIDDEN = jnp.ones((2, *GRID), bool)


def logits_of(model):
    return jax.jit(lambda told: model(CODES, HIDDEN, told), compiler_options=QUICK)


def test_only_what_is_there_before_is_looked_at():
    seen = np.asarray(sight_of_captions(jnp.array([2, 0]), num_places=3, num_tokens=5))[:, 0]
    rows = lambda text: [[int(c) for c in row] for row in text.split()]  # noqa: E731
    np.testing.assert_array_equal(seen[0], rows("10000 01000 01100 01110 01111"))
    np.testing.assert_array_equal(seen[1], rows("10000 01000 00100 00010 00011"))


@pytest.mark.parametrize("changes", [{}, {"positions": "line", "zero_prefix_rotation": True}])
def test_the_cache_of_a_caption_is_the_forward(changes):
    model = Decoder(dataclasses.replace(CAPTIONS, **changes), rngs=nnx.Rngs(1))
    whole = logits_of(model)(TOLD).reshape(2, 6, 6, 4)
    steps, _ = jax.jit(lambda: every_step(model, CODES, TOLD), compiler_options=QUICK)()
    np.testing.assert_allclose(steps, whole, atol=1e-5)


def test_places_that_are_not_there_say_nothing_and_the_others_do():
    model = Decoder(CAPTIONS, rngs=nnx.Rngs(1))
    of = lambda place: TOLD["captions"].at[1, place].add(1.0)  # noqa: E731
    whole = logits_of(model)
    logits = lambda told: whole({**TOLD, **told})[1]  # noqa: E731
    plain = logits({})
    np.testing.assert_array_equal(logits({"captions": of(1)}), plain)
    for place in (2, 3):
        assert (jnp.abs(logits({"captions": of(place)}) - plain).max((1, 2, 3)) > 1e-6).all()


def test_a_caption_left_out_is_the_learnt_one_of_as_many_places():
    task = DecoderTask(CAPTIONS, drop_blueprint=0.1)
    assert task.conditions == tuple(TOLD)
    model = task.init(nnx.Rngs(0))
    assert set(nnx.to_pure_dict(nnx.state(model))) == {
        "blocks", "captions_in", "codes_in", "head", "norm",
    }  # fmt: skip
    untold = task.probes()["unconditional"](model, TOLD)
    nothing = jnp.broadcast_to(model.captions_in.nothing[...], TOLD["captions"].shape)
    logits = logits_of(model)
    np.testing.assert_array_equal(logits(untold), logits({**TOLD, "captions": nothing}))
    graphdef, params = nnx.split(model)
    batch = {**TOLD, "codes": CODES, "captioned": jnp.array([False, True])}
    loss = lambda p: DecoderTask(CAPTIONS).loss(nnx.merge(graphdef, p), batch, jax.random.key(0))[0]  # noqa: E731
    grads = nnx.to_pure_dict(jax.jit(jax.grad(loss), compiler_options=QUICK)(params))
    learnt = jnp.abs(grads["captions_in"]["nothing"]).max(-1)
    assert (learnt > 0).all()


def test_places_on_a_line_count_from_one():
    model = Decoder(config(num_classes=3, positions="line"), rngs=nnx.Rngs(0))
    cos, sin = model.turn({"classes": jnp.array([1])}, 1, GRID)
    assert cos.shape == (1, 6, 1, 8)
    np.testing.assert_allclose(jnp.arctan2(sin, cos)[0, :4, 0, 0], [0, 1, 2, 3], atol=1e-5)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"num_classes": 2, "caption_width": 8}, "exclude each other"),
        ({"caption_width": 8, "objective": "masked"}, "caption_width 8 needs objective 'causal'"),
        ({"caption_width": 8, "num_caption_tokens": 0}, "num_caption_tokens 0 is below 1"),
        ({"positions": "line"}, "a blueprint needs 'grid'"),
        ({"positions": "square"}, "there is: grid, line"),
    ],
)
def test_mistakes_are_named(changes, said):
    with pytest.raises(ValueError, match=said):
        config(**changes)
