"""Lines out of pages: the right pixels, gradients to them alone, and pages that are too full."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageDraw

from blueprint.schema import Blueprint, Box, Text
from blueprint.typeset import bands, lines
from tests.tokenizer.test_backbones import QUICK
from tokenizer.lines import (
    crop,
    filled_px,
    inside,
    jittered,
    line_boxes,
    line_bytes,
    steps_needed,
    taps,
)
from train.data.posters.canvas import PageStyle
from train.data.posters.fonts import families
from train.data.posters.pages import page, plan
from train.data.posters.painting import paint

SIZE = {"height_px": 24, "width_px": 216}
STYLE = PageStyle()


def typeset(string, columns):
    """A line of 12 px type alone in its band, black on white, enlarged by Pillow."""
    face = next(f.face for f in families("sans", "train") if f.name == "Roboto")
    picture = Image.new("L", (96, 15), 255)
    font = face.font("regular", 12)
    ImageDraw.Draw(picture).text((1, 11), string, font=font, fill=0, anchor="ls")
    return np.asarray(picture.resize((columns, 24), Image.Resampling.BILINEAR)) / 127.5 - 1


def one_line(string, *, left=125, top=250, wide=750):
    box = Box(left, top, wide, round(15 * 1000 / 128))
    text = Text("body", (string,), box, size_milli=round(12 * 1000 / 128), colour="#000")
    return Blueprint(128, 128, "#fff", (text,))


def test_bands_stand_where_lines_are_set():
    style = PageStyle(256, 192)
    for seed in range(20):
        _, blueprint = plan(seed, style)
        for text in blueprint.texts:
            for line, (left, top, width, height) in zip(
                lines(text, (256, 192)), bands(text, (256, 192)), strict=True
            ):
                assert line.middle == pytest.approx(top + height / 2)
                assert top < line.baseline < top + height and -1 < line.left - left < width


def test_a_crop_is_the_line_as_if_it_were_set_alone():
    strings = ("Hembtar K49", "FRI 24 AUG")
    family = {c: families(c, "train")[0] for c in ("sans", "serif", "rounded", "script")}
    alike = np.zeros((2, 2))
    for i, string in enumerate(strings):
        blueprint = one_line(string)
        pixels = paint(blueprint, family, None)
        boxes = line_boxes(blueprint, 3)
        assert (boxes[1:] == 0).all()
        boxes = jnp.asarray(boxes)[None]
        cut = crop(jnp.float32(pixels[None] / 127.5 - 1), boxes, **SIZE)[0]
        assert cut.shape == (3, 24, 216, 3) and (cut[1:] == 0).all()
        columns = int(filled_px(boxes, 24, 216)[0, 0])
        assert columns == pytest.approx(154, abs=1) and (cut[0, :, columns + 1 :] == 0).all()
        seen = np.asarray(cut[0, :, :columns, 0])
        for j, other in enumerate(strings):
            wanted = typeset(other, columns)
            alike[i, j] = np.corrcoef(seen.ravel(), wanted.ravel())[0, 1]
    assert np.diag(alike).min() > 0.95 and max(alike[0, 1], alike[1, 0]) < 0.5, alike


def test_whole_pixels_are_copied_and_large_ones_averaged():
    ramp = jnp.arange(128.0)
    own = taps(jnp.array([[3.0]]), jnp.array([[1.0]]), 8, 128)[0, 0]
    np.testing.assert_allclose(own @ ramp, np.arange(3, 11), atol=1e-4)
    half = taps(jnp.array([[8.0]]), jnp.array([[0.5]]), 8, 128)[0, 0]
    np.testing.assert_allclose(half @ ramp, 7.75 + np.arange(8) / 2, atol=1e-4)
    quarter = taps(jnp.array([[16.0]]), jnp.array([[4.0]]), 6, 128)[0, 0]
    np.testing.assert_allclose(quarter @ ramp, 17.5 + 4 * np.arange(6), atol=1e-3)
    seen = np.asarray(quarter.sum(axis=0))[16:40]
    assert seen.min() > 0.1 and seen.max() < 0.4  # every pixel counts
    edge = taps(jnp.array([[0.0]]), jnp.array([[0.5]]), 4, 128)[0, 0]
    assert float((edge @ ramp)[0]) == 0


def test_jitter_moves_boxes_a_little_and_stretches_lines():
    """At a rate of .2 edges move by up to a twentieth of the height, lines stretch by up to a fifth
    each way; where there is no line there is still none."""
    boxes = jnp.tile(jnp.array([[20.0, 40.0, 60.0, 20.0], [0.0, 0.0, 0.0, 0.0]]), (64, 1, 1))
    moved, stretch = jittered(jax.random.key(0), boxes, 0.2)
    apart = np.asarray(moved - boxes)[:, 0]
    assert (np.abs(apart).max(axis=0) <= 1).all() and (apart[:, 2] == 0).all()
    assert (apart[:, [0, 1, 3]].min(axis=0) < -0.8).all() and (
        apart.max(axis=0)[[0, 1, 3]] > 0.8
    ).all()
    assert (np.asarray(moved)[:, 1] == 0).all()
    assert 1 / 1.2 <= stretch.min() < 0.87 and 1.15 < stretch.max() <= 1.2
    columns = filled_px(boxes[:1], 24, 216, stretch=jnp.array([[1.2, 1.0]]))
    np.testing.assert_allclose(columns, [[86.4, 0.0]], rtol=1e-5)
    ramp = jnp.broadcast_to(jnp.arange(128.0)[None, None, :, None], (1, 128, 128, 1))
    cut = crop(ramp, boxes[:1], **SIZE, stretch=jnp.array([[1.2, 1.0]]))[0, 0, 0, :, 0]
    np.testing.assert_allclose(cut[:86], 19.5 + (np.arange(86) + 0.5) * 60 / 86.4, atol=1e-2)


def test_gradients_reach_the_box_and_a_pixel_around_it_only():
    boxes = jnp.array([[[20.0, 40.0, 60.0, 15.0], [0.0, 0.0, 0.0, 0.0]]])
    pull = jax.random.normal(jax.random.key(0), (1, 2, 24, 216, 3))
    function = lambda pixels: (crop(pixels, boxes, **SIZE) * pull).sum()  # noqa: E731
    grad = jax.jit(jax.grad(function), compiler_options=QUICK)(jnp.zeros((1, 128, 128, 3)))
    rows, columns = np.nonzero(np.abs(np.asarray(grad[0])).sum(axis=-1))
    assert (rows.min(), rows.max()) == (39, 55) and (columns.min(), columns.max()) == (19, 80)
    assert len(rows) == 17 * 62
    there = np.asarray(inside(boxes, (128, 128)))[0]
    assert there.sum() == 60 * 15 and there[40:55, 20:80].all()


def test_a_full_page_and_a_long_line_name_the_remedy():
    blueprint = one_line("Mm €7")
    with pytest.raises(ValueError, match=r"a page has 1 lines, more than max_lines 0: raise"):
        line_boxes(blueprint, 0)
    with pytest.raises(ValueError, match=r"'Mm €7' has 7 bytes, more than max_bytes 6: raise"):
        line_bytes(blueprint, 2, 6)
    ids = line_bytes(blueprint, 2, 8)
    assert bytes(i - 1 for i in ids[0] if i) == "Mm €7".encode() and (ids[1] == 0).all()
    assert steps_needed("Mm €7") == 7 and steps_needed("book") == 5


def test_the_demos_pages_fit_the_ceilings():
    for seed in range(200):
        _, blueprint = plan(seed, STYLE)
        line_boxes(blueprint, 6)
        line_bytes(blueprint, 6, 20)
    assert page(0, STYLE).pixels.shape == (128, 128, 3)
