"""Pages of much text: sound by the printer's rules, as full as they were asked to be, and nothing
to pages that are not of them."""

import random

import numpy as np
import pytest

from blueprint.check import copy_fidelity, findings
from blueprint.codec import decode, encode
from blueprint.copying import quoted
from blueprint.typeset import size_px
from train.data.posters import dense
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import page, plan
from train.data.posters.words import in_training, invented

STYLES = [
    PageStyle(dense=1.0),
    PageStyle(256, 320, split="heldout", dense=1.0, num_words=(8, 40), body_px=(12, 32)),
    PageStyle(512, 512, quoted="all", dense=1.0, num_words=(20, 120)),
]
SEEDS = range(24)


@pytest.mark.parametrize("style", STYLES, ids=str)
def test_every_dense_page_is_sound(style):
    called = set()
    for seed in SEEDS:
        prompt, blueprint = plan(seed, style)
        called.add(prompt)
        assert findings(blueprint) == [], seed
        assert 1 <= len(blueprint.words) <= style.num_words[1]
        assert all(t.source == "verbatim" for t in blueprint.texts)
        assert quoted(prompt) == tuple(t.string for t in blueprint.texts)
        assert copy_fidelity(prompt, blueprint) == 1.0
        assert decode(encode(blueprint)) == blueprint
        sizes = {size_px(t, style.height_px) for t in blueprint.texts if t.kind == "body"}
        assert len(sizes) <= 1 and all(12 <= size <= style.body_px[1] for size in sizes)
    assert len(called) == len(SEEDS)


def test_a_large_page_says_up_to_two_hundred_words_and_a_small_one_what_it_can():
    style = PageStyle(512, 512, dense=1.0, num_words=(150, 200))
    counts = [len(plan(seed, style)[1].words) for seed in range(6)]
    assert min(counts) >= 100 and max(counts) >= 150
    style = PageStyle(dense=1.0, num_words=(150, 200))
    counts = [len(plan(seed, style)[1].words) for seed in range(6)]
    assert min(counts) >= 5 and max(counts) <= 20


def test_words_are_counted_out_where_there_is_room():
    for num_words in (1, 2, 5, 17, 60):
        style = PageStyle(512, 512, dense=1.0, num_words=(num_words, num_words))
        assert {len(plan(seed, style)[1].words) for seed in range(6)} == {num_words}


def test_every_scene_of_a_domain_occurs():
    style = PageStyle(512, 512, dense=1.0, num_words=(12, 30))
    seen = " ".join(plan(seed, style)[0] for seed in range(120))
    for name in ("leaflet", "programme", "article", "table", "inbox", "price list", "details",
                 "catalogue"):  # fmt: skip
        assert name in seen


def test_running_text_has_just_the_size_that_was_asked_for():
    for body in (6, 9, 24):
        style = PageStyle(256, 256, dense=1.0, num_words=(6, 24), body_px=(body, body))
        for seed in range(6):
            texts = list(plan(seed, style)[1].texts)
            assert min(size_px(t, 256) for t in texts) >= body
            assert all(size_px(t, 256) == body for t in texts if t.kind in ("body", "label"))
            rules = {f.rule for f in findings(plan(seed, style)[1])}
            assert rules == ({"type size"} if body < 8 else set())


def test_dense_text_leaves_ink_in_its_box_and_the_page_is_pure():
    style = PageStyle(256, 256, dense=1.0, num_words=(10, 40))
    for seed in range(6):
        made = page(seed, style)
        np.testing.assert_array_equal(made.pixels, page(seed, style).pixels)
        for text in made.blueprint.texts:
            left, top, width, height = (round(n) for n in text.box.pixels(256, 256))
            inside = made.pixels[top : top + height, left : left + width].reshape(-1, 3)
            ink = np.array([17 * int(digit, 16) for digit in text.colour[1:]])
            assert (np.abs(inside.astype(int) - ink).max(axis=1) < 90).mean() > 0.02, (seed, text)


def test_pages_that_are_not_dense_are_what_they_were():
    plain = [plan(seed, PageStyle()) for seed in range(40)]
    odd = PageStyle(num_words=(3, 9), body_px=(8, 9))
    assert [plan(seed, odd) for seed in range(40)] == plain
    some = [plan(seed, PageStyle(dense=0.5)) for seed in range(40)]
    assert 10 <= sum(a == b for a, b in zip(plain, some, strict=True)) <= 30


def test_a_page_without_room_and_bad_styles_are_named():
    style = PageStyle(96, 96, dense=1.0, num_words=(1, 1), body_px=(80, 80))
    with pytest.raises(ValueError, match="96 x 96 px has no room for a word of 80 px type"):
        plan(0, style)
    with pytest.raises(ValueError, match="dense 2 is not a share"):
        PageStyle(dense=2)
    with pytest.raises(ValueError, match=r"num_words \(0, 4\) is not \(least, most\) from 1 up"):
        PageStyle(num_words=(0, 4))
    with pytest.raises(ValueError, match=r"body_px \(9, 8\) is not"):
        PageStyle(body_px=(9, 8))


def test_what_training_may_say_is_known():
    rng = random.Random(5)
    assert all(in_training(invented(rng, "train")) for _ in range(100))
    held = [invented(rng, "heldout") for _ in range(100)]
    assert sum(map(in_training, held)) <= 2  # a name that is drawn by chance
    assert all(map(in_training, ("$4.20", "MON", "19", "8:15", "-30%")))
    assert set(dense.DENSE) == {"poster", "mockup", "shop"}
