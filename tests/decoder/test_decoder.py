"""The decoder: what is hidden stays unseen, letters sit on their strokes, and it learns pages by
heart."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from blueprint.schema import Blueprint, Box, Picture, Shape, Text
from decoder.conditioning import ConditioningConfig, canonical_page, characters, condition, glyphs
from decoder.config import DecoderConfig
from decoder.model import Decoder
from decoder.task import CONDITIONS, DecoderTask, draw_mask, example
from layers.block import BlockConfig
from sampling.parallel import at_once, decode_masked
from sampling.picking import Pick
from sampling.policy import Policy
from tests.decoder.learning import fitted
from tests.decoder.pages import batch as corners
from tests.decoder.pages import config
from tests.tokenizer.menu import QUICK
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import plan

BLOCKS = BlockConfig(width=32, num_layers=2, num_heads=2, num_kv_heads=2, head_size=16, hidden=64)
CONFIG = DecoderConfig(BLOCKS, num_codes=6, codebook_size=4, conditioning=ConditioningConfig())


def batch(size):
    style = PageStyle()
    rng = np.random.default_rng(0)
    y, x = style.height_px // 8, style.width_px // 8
    shape = (y, x, 6)
    records = [
        {
            "blueprint": plan(s, style)[1],
            "codes": rng.integers(0, 4, shape, dtype=np.uint8),
            "glyph_codes": rng.integers(0, 4, shape, dtype=np.uint8),
        }
        for s in range(size)
    ]
    rows = [example(record, CONFIG.conditioning) for record in records]
    return {name: jnp.stack([row[name] for row in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def model():
    return Decoder(CONFIG, rngs=nnx.Rngs(0))


def given(data):
    return {name: data[name] for name in CONDITIONS}


def test_hidden_codes_are_never_seen(model):
    data = batch(1)
    masked = jax.random.bernoulli(jax.random.key(0), 0.5, (1, 16, 16))
    codes = jnp.array(data["codes"], jnp.int32)
    other = jnp.where(masked[..., None], 3 - codes, codes)
    np.testing.assert_array_equal(
        model(codes, masked, given(data)), model(other, masked, given(data))
    )
    shown = jnp.where(masked[..., None], codes, 3 - codes)
    assert (
        jnp.abs(model(shown, masked, given(data)) - model(codes, masked, given(data))).max() > 1e-4
    )


def test_conditions_of_a_larger_page_have_the_shapes_of_its_grid():
    style = PageStyle(256, 320)
    config = DecoderConfig(BLOCKS, 48, 8, ConditioningConfig(max_characters=256))
    arrays = condition(plan(3, style)[1], config.conditioning)
    codes = jnp.zeros((1, 40, 32, 48), jnp.int32)
    arrays = {**arrays, "glyph_codes": codes[0]}

    def logits():
        rows = {name: jnp.array(array)[None] for name, array in arrays.items()}
        return Decoder(config, rngs=nnx.Rngs(0))(codes, jnp.ones((1, 40, 32), bool), rows)

    assert jax.eval_shape(logits).shape == (1, 40, 32, 48, 8)


def test_letters_sit_on_their_strokes():
    text = Text("title", ("Wide", "oo"), Box(100, 100, 800, 500), size_milli=190, align="left")
    blueprint = Blueprint(128, 128, "#fff", (text,))
    placed = characters(blueprint, ConditioningConfig())
    count = int((placed["letters"] > 0).sum())
    assert bytes((placed["letters"][:count] - 1).tolist()).decode() == "Wideoo"
    window = glyphs(blueprint, ConditioningConfig()).reshape(16, 16, 16, 16)
    for y, x in placed["letter_places"][:count]:
        assert window[int(y - 1), int(x - 1)].max() > 100
    assert glyphs(blueprint, ConditioningConfig(glyphs="off")).max() == 0
    with pytest.raises(ValueError, match="more than 4 characters"):
        characters(blueprint, ConditioningConfig(max_characters=4))


def test_masks_hide_what_they_should():
    assert draw_mask(jax.random.key(0), (4, 16, 16), 1.0).all()
    shares = draw_mask(jax.random.key(1), (400, 16, 16), 0.0).mean(axis=(1, 2))
    assert shares.std() > 0.2 and abs(float(shares.mean()) - 2 / np.pi) < 0.05


def test_overfits_eight_pages():
    data = corners(8)
    data["codes"] = jnp.repeat(data["codes"][:, :1], len(data["codes"][0]), axis=1)  # of one row
    _, losses = fitted(DecoderTask(CONFIG, whole_mask=1.0), lambda _: data, 60)
    assert losses[0] > 1.2 and losses[-1] < 0.7 * losses[0]


def test_parallel_decoding_keeps_what_is_known(model):
    data = batch(2)
    codes = jnp.array(data["codes"], jnp.int32)
    masked = jnp.zeros((2, 16, 16), bool).at[:, 4:9, 3:12].set(True)
    logits_of = lambda c, m: model(c, m, given(data))  # noqa: E731
    keys = jax.random.split(jax.random.key(5), 2)

    @functools.partial(jax.jit, static_argnums=(0, 1, 2))
    def run(passes, temperature, first=0):
        def logits_of(c, m):
            return model(c, m, {name: array[first:] for name, array in given(data).items()})

        pick, rows = Pick(keys[first:], Policy(temperature)), (codes[first:], masked[first:])
        return decode_masked(at_once(logits_of), *rows, pick, num_passes=passes)

    greedy = run(1, 0.0)
    expected = jnp.where(masked[..., None], logits_of(codes, masked).argmax(-1), codes)
    np.testing.assert_array_equal(greedy, expected)
    for passes in (1, 4):
        drawn = run(passes, 1.0)
        np.testing.assert_array_equal(drawn[~masked], codes[~masked])
        np.testing.assert_array_equal(drawn, run(passes, 1.0))
        np.testing.assert_array_equal(drawn[1:], run(passes, 1.0, 1))


def test_the_canonical_page_has_boxes_and_lines_but_no_figures():
    elements = (
        Shape("ellipse", Box(0, 0, 500, 500), "#f00"),
        Shape("rounded", Box(0, 500, 500, 500), "#0f0", "outline"),
        Picture(Box(500, 0, 500, 500), "cat"),
        Text("title", ("Hi",), Box(100, 150, 300, 200), size_milli=150, colour="#00f"),
    )
    page = canonical_page(Blueprint(128, 128, "#fff", elements))
    assert page.shape == (128, 128, 3)
    assert (page[0, 0] == (255, 0, 0)).all()  # the corner of an ellipse's box
    assert (page[64:, :64] == 255).all()  # an outline is not drawn
    assert (page[:64, 64:] == 136).all()  # nor is a picture
    left, top, width, height = (round(n) for n in elements[3].box.pixels(128, 128))
    ink = page[..., 2].astype(int) - page[..., 1] > 60
    assert ink[top : top + height, left : left + width].mean() > 0.05
    ink[top : top + height, left : left + width] = False
    assert not ink.any()


def test_ordered_codes_start_at_the_canonical_level():
    config = dataclasses.replace(CONFIG, ordered=True)
    model, data = Decoder(config, rngs=nnx.Rngs(0)), batch(1)
    codes, masked = jnp.array(data["codes"], jnp.int32), jnp.ones((1, 16, 16), bool)
    logits = model(codes, masked, given(data))
    assert (logits.argmax(-1) == data["glyph_codes"]).mean() > 0.9
    spread = logits.std(axis=-1)
    plain = Decoder(CONFIG, rngs=nnx.Rngs(0))(codes, masked, given(data)).std(axis=-1)
    assert spread.mean() > plain.mean()
    near = jnp.take_along_axis(logits, jnp.array([1])[None, None, None, None], axis=-1)
    far = jnp.take_along_axis(logits, jnp.array([3])[None, None, None, None], axis=-1)
    assert ((near > far)[..., 0] | (data["glyph_codes"] > 0)).mean() > 0.9


def test_without_glyphs_their_codes_are_not_looked_at():
    config = dataclasses.replace(CONFIG, conditioning=ConditioningConfig(glyphs="ink"))
    model, data = Decoder(config, rngs=nnx.Rngs(0)), batch(1)
    codes, masked = jnp.array(data["codes"], jnp.int32), jnp.ones((1, 16, 16), bool)
    first = model(codes, masked, given(data))
    data["glyph_codes"] = 3 - data["glyph_codes"]
    np.testing.assert_array_equal(first, model(codes, masked, given(data)))


def test_a_large_codebook_is_looked_up_and_means_the_same(monkeypatch):
    """Vectors of codes and what they learn: a product with one-hots, and rows of the table."""
    model = Decoder(config(), rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(model)
    codes = jnp.array(np.random.default_rng(0).integers(0, 4, (2, 5, 6)))

    def found():
        def seen(params):
            return jnp.sin(nnx.merge(graphdef, params).codes(codes)).sum(), params

        run = jax.jit(jax.value_and_grad(seen, has_aux=True), compiler_options=QUICK)
        (value, _), gradient = run(nnx.to_pure_dict(state))
        return value, gradient["codes_in"]["kernel"]

    multiplied = found()
    monkeypatch.setattr("decoder.model.LARGE_CODEBOOK", 4)
    for one, other in zip(found(), multiplied, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
